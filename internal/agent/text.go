package agent

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// validText replaces what is no UTF-8 in all strings of a message by U+FFFD.
// File names are bytes to the kernel; a message with one that is no text could
// never be sent.
func validText(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			validMap(f, v.Map())
		case f.IsList():
			for i := range v.List().Len() {
				if fixed, changed := validValue(f, v.List().Get(i)); changed {
					v.List().Set(i, fixed)
				}
			}
		default:
			if fixed, changed := validValue(f, v); changed {
				m.Set(f, fixed)
			}
		}
		return true
	})
}

func validMap(f protoreflect.FieldDescriptor, m protoreflect.Map) {
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		if fixed, changed := validValue(f.MapValue(), v); changed {
			m.Set(k, fixed)
		}
		return true
	})
}

// validValue descends into messages, and returns what a string has to be
// replaced by.
func validValue(f protoreflect.FieldDescriptor, v protoreflect.Value) (fixed protoreflect.Value, changed bool) {
	switch f.Kind() {
	case protoreflect.MessageKind:
		validText(v.Message())
	case protoreflect.StringKind:
		s := strings.ToValidUTF8(v.String(), "\uFFFD")
		return protoreflect.ValueOfString(s), s != v.String()
	}
	return v, false
}
