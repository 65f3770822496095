// Package printable makes what containers and agents wrote safe to print: names
// of functions and paths of files can hold anything, also what a terminal obeys.
package printable

import (
	"reflect"
	"strings"
	"unicode"
)

// Text returns a text as one line of valid UTF-8 without control characters.
func Text(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r):
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}

// All makes every text printable that a pointer leads to: in structs, slices,
// maps and what they point to. Keys of maps and unexported fields stay.
func All(pointer any) { all(reflect.ValueOf(pointer)) }

func all(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			all(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			all(v.Field(i))
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			all(v.Index(i))
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			e := reflect.New(v.Type().Elem()).Elem()
			e.Set(v.MapIndex(k))
			all(e)
			v.SetMapIndex(k, e)
		}
	case reflect.String:
		if v.CanSet() {
			v.SetString(Text(v.String()))
		}
	}
}
