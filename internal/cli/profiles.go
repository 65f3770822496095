package cli

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/confinehq/confine/internal/term"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

func newProfiles(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "profiles [IMAGE]",
		Short: "List stored results, newest first",
		Args:  atMostArgs(1),
	}
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkOutput(cmd, *output, "text", "json"); err != nil {
			return err
		}
		req := &confinev1.ListProfilesRequest{}
		if len(args) == 1 {
			req.Image = args[0]
		}
		return a.withServer(cmd.Context(), func(c confinev1.OperatorServiceClient) error {
			list, err := c.ListProfiles(cmd.Context(), req)
			if err != nil {
				return err
			}
			if *output == "json" {
				return writeProto(a.out, list)
			}
			return a.writeProfiles(list.GetProfiles())
		})
	}
	return cmd
}

func (a *app) writeProfiles(list []*confinev1.ProfileSummary) error {
	if len(list) == 0 {
		fmt.Fprintln(a.err, "no result is stored; make one with 'confinectl profile --node NODE IMAGE'")
		return nil
	}
	rows := [][]string{{"ID", "IMAGE", "DIGEST", "NODE", "MADE", "CALLS", "INCOMPLETE", "PROOF"}}
	for _, p := range list {
		incomplete := strconv.Itoa(int(p.GetIncomplete()))
		if p.GetIncomplete() > 0 {
			incomplete = a.out.Styles.Warn.Render(incomplete)
		}
		rows = append(rows, []string{
			p.GetId(), p.GetImage(), shortDigest(p.GetDigest()), dash(p.GetNode()), age(p.GetCreated()),
			strconv.Itoa(int(p.GetSyscalls())), incomplete, proofWord(a.out, p.GetProof()),
		})
	}
	return term.Table(a.out, rows)
}

// proofWord colours the status of a proof.
func proofWord(o *term.Output, status string) string {
	switch status {
	case "proven":
		return o.Styles.Good.Render(status)
	case "skipped", "":
		return o.Styles.Warn.Render(first(status, "none"))
	}
	return o.Styles.Bad.Render(status)
}

// shortDigest keeps what a person compares: twelve digits.
func shortDigest(d string) string {
	const algorithm = len("sha256:")
	if len(d) > algorithm+12 {
		return d[algorithm : algorithm+12]
	}
	return dash(d)
}
