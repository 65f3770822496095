package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

var roles = []string{"agent", "operator", "reader"}

func newToken(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make tokens with which nodes and people join",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	cmd.AddCommand(newTokenCreate(a))
	return cmd
}

func newTokenCreate(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create --role ROLE",
		Short: "Make a one-time token for a new agent, operator or reader",
		Long: `create prints a token that one new agent (or person) can use once to get its
certificate. The token also names the server's CA, so that who joins knows that
it talks to this server. Standard output carries the token alone.`,
		Args: noArgs,
	}
	role := cmd.Flags().String("role", "agent", "role of who joins: "+strings.Join(roles, ", "))
	ttl := cmd.Flags().Duration("ttl", time.Hour, "how long the token can be used")
	output := outputFlag(cmd, "text", "json")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(roles, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkOutput(cmd, *output, "text", "json"); err != nil {
			return err
		}
		if !slices.Contains(roles, *role) {
			return usagef(cmd, "unknown role %q, want %s", *role, strings.Join(roles, ", "))
		}
		if *ttl <= 0 {
			return usagef(cmd, "--ttl must be positive")
		}
		return a.withServer(cmd.Context(), func(c confinev1.OperatorServiceClient) error {
			made, err := c.CreateJoinToken(cmd.Context(), &confinev1.CreateJoinTokenRequest{Role: *role, Ttl: durationpb.New(*ttl)})
			if err != nil {
				return err
			}
			if *output == "json" {
				return writeProto(a.out, made)
			}
			fmt.Fprintln(a.out, made.GetToken())
			if a.out.Terminal {
				fmt.Fprintf(a.err, "\nUse it once before %s:\n  %s\n", made.GetExpires().AsTime().Local().Format(time.DateTime), joinCommand(*role))
			}
			return nil
		})
	}
	return cmd
}

// joinCommand is what to type with a token of this role on the other machine.
func joinCommand(role string) string {
	if role == "agent" {
		return "confine-agent join --server THIS-HOST:7443 --token TOKEN"
	}
	return "confinectl login --server THIS-HOST:7443 --token TOKEN"
}
