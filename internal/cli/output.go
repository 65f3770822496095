package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// outputFlag adds -o with the formats that a verb knows; the first is the
// default.
func outputFlag(cmd *cobra.Command, formats ...string) *string {
	v := new(string)
	cmd.Flags().StringVarP(v, "output", "o", formats[0], "format: "+strings.Join(formats, ", "))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	return v
}

// checkOutput refuses a format that the verb doesn't know.
func checkOutput(cmd *cobra.Command, format string, formats ...string) error {
	if slices.Contains(formats, format) {
		return nil
	}
	return usagef(cmd, "unknown output format %q, want %s", format, strings.Join(formats, ", "))
}

// protoJSON is the one JSON form of messages: names as in the protos, empty
// fields present, stable indentation. (protojson itself varies its white
// space on purpose.)
func protoJSON(m proto.Message) ([]byte, error) {
	data, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode JSON: %w", err)
	}
	return indent(data)
}

func indent(data []byte) ([]byte, error) {
	var b bytes.Buffer
	if err := json.Indent(&b, data, "", "  "); err != nil {
		return nil, fmt.Errorf("encode JSON: %w", err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// plainJSON is the same for values of our own.
func plainJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encode JSON: %w", err)
	}
	return b.Bytes(), nil
}

// writeProto prints a message as JSON.
func writeProto(w io.Writer, m proto.Message) error {
	data, err := protoJSON(m)
	if err != nil {
		return err
	}
	return write(w, data)
}

// writeJSON prints a value of our own as JSON.
func writeJSON(w io.Writer, v any) error {
	data, err := plainJSON(v)
	if err != nil {
		return err
	}
	return write(w, data)
}

func write(w io.Writer, data []byte) error {
	if _, err := w.Write(data); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// writeFile replaces a file, so that a reader never sees half of it. What is
// no regular file (a pipe, /dev/stdout) is written to as it is.
func writeFile(name string, data []byte) error {
	if st, err := os.Stat(name); err == nil && !st.Mode().IsRegular() {
		return os.WriteFile(name, data, 0o644)
	}
	tmp := name + ".new"
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	if err := os.Rename(tmp, name); err != nil {
		_ = os.Remove(tmp)
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}
