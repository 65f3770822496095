package facts

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"reflect"
	"slices"
	"testing"
)

// roundTrip wants facts back as they were written.
func roundTrip(t *testing.T, f *Facts) {
	t.Helper()
	text := Encode(f)
	g, err := Decode(text)
	if err != nil {
		t.Fatalf("decode %d bytes: %v", len(text), err)
	}
	if !bytes.Equal(Encode(g), text) {
		t.Error("written again, the facts differ")
	}
	same(t, f, g)
}

// same compares two facts field by field, so that a field that isn't written is
// noticed; empty lists are equal to none.
func same(t *testing.T, f, g *Facts) {
	t.Helper()
	a, b := reflect.ValueOf(*f), reflect.ValueOf(*g)
	for i := range a.NumField() {
		x, y := a.Field(i), b.Field(i)
		name := a.Type().Field(i).Name
		if !a.Type().Field(i).IsExported() {
			continue // made from the others
		}
		switch x.Kind() {
		case reflect.Slice:
			if x.Len() != y.Len() {
				t.Errorf("%s: %d are read of %d", name, y.Len(), x.Len())
				continue
			}
			for k := range x.Len() {
				if p, q := normal1(x.Index(k)), normal1(y.Index(k)); !reflect.DeepEqual(p, q) {
					t.Errorf("%s %d: read as %+v, was %+v", name, k, q, p)
					break
				}
			}
		case reflect.Map:
			if x.Len() != y.Len() || x.Len() > 0 && !reflect.DeepEqual(x.Interface(), y.Interface()) {
				t.Errorf("%s differs", name)
			}
		default:
			if !reflect.DeepEqual(x.Interface(), y.Interface()) {
				t.Errorf("%s: read as %v, was %v", name, y.Interface(), x.Interface())
			}
		}
	}
}

// normal1 copies a value with its empty lists made nil.
func normal1(v reflect.Value) any {
	c := reflect.New(v.Type()).Elem()
	c.Set(v)
	if c.Kind() != reflect.Struct {
		return c.Interface()
	}
	for i := range c.NumField() {
		f := c.Field(i)
		if f.Kind() != reflect.Slice {
			continue
		}
		if f.Len() == 0 {
			f.SetZero()
			continue
		}
		if f.Type().Elem().Kind() == reflect.Struct {
			n := reflect.MakeSlice(f.Type(), f.Len(), f.Len())
			for k := range f.Len() {
				n.Index(k).Set(reflect.ValueOf(normal1(f.Index(k))))
			}
			f.Set(n)
		}
	}
	return c.Interface()
}

// sample has something in every field, which TestSampleIsFull checks.
func sample() *Facts {
	return &Facts{
		Machine: 62, Class: 2, Size: 1 << 33,
		Funcs: []Func{
			{Start: 0x1000, End: 0x1010, Edges: []Edge{{0, EdgeTable}, {1, EdgeCall}}, Imports: []ImportUse{{0, true}, {1, false}}},
			{
				Start: 0x1010, End: 0x1100, Regions: []uint32{0, 1}, Strings: []uint32{0}, ComputedJump: true,
				Generic: true,
				Passes:  []Pass{{To: 1, Args: []Arg{{At: 7, Values: []uint32{0}}}}, {To: 0, Import: true, Args: []Arg{{At: 6, Params: []Loc{2}}, {At: 17, Values: []uint32{5}}}}},
				Sites: []Site{
					{Addr: 0x1020, Kind: SiteSyscall, Nrs: []int32{-1, 0, 60}, Params: []Loc{7, 17}, Derefs: true, Called: true, Vars: []uint32{0, 1}},
					{Addr: 0x1100, Kind: SiteInt80, Unresolved: "the number is computed", Via: 1},
					{Addr: 0x1011, Kind: SiteSyscall, Nrs: []int32{72}, Args: []Arg{{At: 1, Values: []uint32{3, 1 << 31, 1<<32 - 1}, Params: []Loc{6, 19}}, {At: 4, Params: []Loc{0}}}},
				},
			},
		},
		Regions: []Region{
			{Name: ".data", Start: 0x2000, End: 0x2010, Funcs: []uint32{1}, Imports: []uint32{0}, Regions: []uint32{1}, Strings: []uint32{1}},
			{Name: ".bss", Start: 0x3000, End: 0x3000},
		},
		Imports: []Import{{Name: "f", Version: "V1", Weak: true, Args: []Arg{{At: 2, Values: []uint32{1, 7}}, {At: 6, Values: []uint32{0}}}}, {Name: "g", Own: true, OwnFunc: 1, OwnRegion: 2, Copy: true}},
		Exports: []Export{{Name: "a", Version: "V2", Hidden: true, Func: 1, IFunc: true}, {Name: "b", Region: 1}},
		Strings: []string{"/bin/sh", "libm.so.6"}, Entry: 1, Held: []uint32{0, 1}, Roots: []uint32{1}, RootImports: []uint32{1}, RootRegions: []uint32{0},
		Interp: "/lib/ld.so", Soname: "x.so", RPath: "/a", RunPath: "$ORIGIN", Needed: []string{"libc.so.6", "x.so"},
		NoDefLib: true, Go: true, IsPIE: true, Symbols: map[uint32]string{0: "main", 1: "f"}, Warnings: []string{"unreadable"},
	}
}

// TestSampleIsFull makes sure that a new field comes into the sample, and so
// into the codec.
func TestSampleIsFull(t *testing.T) {
	f := reflect.ValueOf(*sample())
	for i := range f.NumField() {
		if f.Type().Field(i).IsExported() && f.Field(i).IsZero() {
			t.Errorf("Facts.%s is empty in the sample", f.Type().Field(i).Name)
		}
	}
	full := func(list reflect.Value) {
		for i := range list.Type().Elem().NumField() {
			set := false
			for k := range list.Len() {
				set = set || !list.Index(k).Field(i).IsZero()
			}
			if !set {
				t.Errorf("%v.%s is empty in the sample", list.Type().Elem(), list.Type().Elem().Field(i).Name)
			}
		}
	}
	for _, list := range []any{sample().Funcs, sample().Regions, sample().Imports, sample().Exports, sample().Funcs[1].Sites} {
		full(reflect.ValueOf(list))
	}
}

func TestCodec(t *testing.T) {
	f := sample()
	if bad := f.Invariants(); bad != nil {
		t.Fatal(bad)
	}
	roundTrip(t, f)
	roundTrip(t, &Facts{})
}

// TestCodecBroken wants ErrCorrupt for every part of an encoding, and nothing
// but consistent facts for every change of one byte.
func TestCodecBroken(t *testing.T) {
	text := Encode(sample())
	for n := range text {
		if _, err := Decode(text[:n]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("first %d bytes: %v", n, err)
		}
	}
	if _, err := Decode(append(slices.Clone(text), 0)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("with a byte more: %v", err)
	}
	plain, err := unpack(text)
	if err != nil {
		t.Fatal(err)
	}
	for n := range plain {
		if _, err := Decode(repack(text, plain[:n])); !errors.Is(err, ErrCorrupt) {
			t.Errorf("first %d bytes of the plain text: %v", n, err)
		}
		for bit := range 8 {
			b := slices.Clone(plain)
			b[n] ^= 1 << bit
			decodable(t, repack(text, b))
		}
	}
	for n := range text {
		b := slices.Clone(text)
		b[n] ^= 1
		decodable(t, b)
	}
}

// repack puts another body behind the head of an encoding.
func repack(text, plain []byte) []byte {
	head, _, err := parts(text)
	if err != nil {
		panic(err)
	}
	return pack(head, plain)
}

// decodable decodes anything: the result is an error or facts whose indexes
// are all in range.
func decodable(t *testing.T, text []byte) {
	t.Helper()
	f, err := Decode(text)
	if err != nil {
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("% x: %v", text, err)
		}
		return
	}
	if err := f.check(); err != nil {
		t.Errorf("% x: %v", text, err)
	}
	if err := f.Print(io.Discard, "x", false); err != nil {
		t.Error(err)
	}
}

func TestSitesCodec(t *testing.T) {
	m := map[uint32][]Site{3: sample().Funcs[1].Sites, 9: nil, 1 << 31: {{Addr: 1 << 63, Kind: SiteSysenter}}}
	got, err := DecodeSites(EncodeSites(m))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(m) {
		t.Errorf("functions %v, want %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(m)))
	}
	for i := range m {
		if len(got[i]) != len(m[i]) || len(m[i]) > 0 && !reflect.DeepEqual(got[i], m[i]) {
			t.Errorf("function %d: %+v, want %+v", i, got[i], m[i])
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	for _, g := range []*Facts{sample(), {}} {
		plain, err := unpack(Encode(g))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(plain)
	}
	f.Fuzz(func(t *testing.T, plain []byte) {
		decodable(t, plain)
		text := repack(Encode(sample()), plain)
		decodable(t, text)
		if g, err := Decode(text); err == nil {
			roundTrip(t, g)
		}
	})
}

func FuzzDecodeHeader(f *testing.F) {
	f.Add([]byte{})
	f.Add(encodeHeader(sample()))
	f.Fuzz(func(t *testing.T, head []byte) {
		if _, err := DecodeHeader(pack(head, nil)); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
	})
}

func FuzzDecodeSites(f *testing.F) {
	f.Add([]byte{})
	plain, err := unpack(EncodeSites(map[uint32][]Site{3: sample().Funcs[1].Sites, 9: nil}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Fuzz(func(t *testing.T, plain []byte) {
		m, err := DecodeSites(pack(nil, plain))
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Error(err)
			}
			return
		}
		again, err := DecodeSites(EncodeSites(m))
		if err != nil || len(again) != len(m) {
			t.Errorf("read again: %v, %d functions of %d", err, len(again), len(m))
		}
	})
}
