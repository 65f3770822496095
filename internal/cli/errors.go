package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/confinehq/confine/internal/printable"
)

// errIncomplete ends a command whose answer was written but lacks something,
// or isn't proven. What lacks has been said already.
var errIncomplete = errors.New("incomplete")

// usageError is a command line that can't be carried out.
type usageError struct {
	text string
}

func (e *usageError) Error() string { return e.text }

// usagef says what is wrong with the command line of cmd and where to look.
func usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...) + "; see '" + cmd.CommandPath() + " --help'"}
}

// usageOf turns a server's refusal of what the command line names into a usage
// error.
func usageOf(cmd *cobra.Command, err error) error {
	if status.Code(err) == codes.InvalidArgument {
		return usagef(cmd, "%s", oneLine(status.Convert(err).Message()))
	}
	return err
}

// noArgs, exactArgs and the like are cobra's, with usage errors.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return usagef(cmd, "unknown command %q", args[0])
	}
	return usagef(cmd, "unexpected argument %q", args[0])
}

// exactArgs wants one argument for each name.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usagef(cmd, "%s is missing", names[len(args)])
		case len(args) > len(names):
			return usagef(cmd, "unexpected argument %q", args[len(names)])
		}
		return nil
	}
}

// atMostArgs wants at most n arguments.
func atMostArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return usagef(cmd, "unexpected argument %q", args[n])
		}
		return nil
	}
}

// explainError turns an error into one line that says what to do next.
func (a *app) explainError(err error) string {
	if errors.Is(err, context.Canceled) || status.Code(err) == codes.Canceled {
		return "interrupted; what the run made on the node is being removed"
	}
	st, ok := status.FromError(err)
	if !ok {
		return oneLine(err.Error())
	}
	text := oneLine(st.Message())
	switch st.Code() {
	case codes.Unavailable:
		return a.unreachable(text)
	case codes.Unauthenticated:
		return text + "; enrol this machine: on the server 'confinectl token create --role operator', here 'confinectl login --server HOST:PORT --token TOKEN'"
	case codes.PermissionDenied:
		if strings.Contains(text, "local administrator") {
			return text // no token helps
		}
		return text + "; ask for a token of a role that may do this ('confinectl token create --role operator' on the server)"
	case codes.Unimplemented:
		return text + "; server and confinectl are of different versions, see 'confinectl version'"
	case codes.DeadlineExceeded:
		return text + "; try a longer --timeout"
	}
	return text
}

// unreachable says how to get a server that answers.
func (a *app) unreachable(text string) string {
	target, err := a.target()
	if err != nil {
		return text
	}
	var next string
	switch {
	case !target.unix():
		next = "check the address and that confine-server runs there"
	case strings.Contains(text, "permission denied"):
		next = "run as root, or as a member of the socket's group"
	default:
		next = "start it with 'systemctl start confine-server', name another with --server, or use --standalone"
	}
	return fmt.Sprintf("no server answers at %s (%s): %s", target.address, cause(text), next)
}

// cause is the last, most telling part of a transport's error.
func cause(text string) string {
	text = strings.TrimSuffix(text, `"`)
	if i := strings.LastIndex(text, ": "); i >= 0 {
		return text[i+2:]
	}
	return text
}

func oneLine(text string) string {
	return strings.Join(strings.Fields(printable.Text(text)), " ")
}
