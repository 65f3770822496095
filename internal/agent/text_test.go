package agent

import (
	"testing"

	"google.golang.org/protobuf/proto"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

func TestValidText(t *testing.T) {
	m := &confinev1.ConnectRequest{RunId: "r\xff", Message: &confinev1.ConnectRequest_LookupReply{LookupReply: &confinev1.LookupReply{
		RequestId: "q1",
		Entries: []*confinev1.LookupEntry{
			{Path: "/a", Names: []string{"good", "b\xe4d"}, Content: []byte{0xff}},
			{Path: "/\xc3", Error: "fine: ä"},
		},
	}}}
	validText(m.ProtoReflect())
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var got confinev1.ConnectRequest
	if err := proto.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	want := &confinev1.ConnectRequest{RunId: "r\uFFFD", Message: &confinev1.ConnectRequest_LookupReply{LookupReply: &confinev1.LookupReply{
		RequestId: "q1",
		Entries: []*confinev1.LookupEntry{
			{Path: "/a", Names: []string{"good", "b\uFFFDd"}, Content: []byte{0xff}},
			{Path: "/\uFFFD", Error: "fine: ä"},
		},
	}}}
	if !proto.Equal(&got, want) {
		t.Errorf("got %v", &got)
	}
}
