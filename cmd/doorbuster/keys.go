package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/cmd/doorbuster/config"
	"github.com/doorbuster/doorbuster/gateway"
	"github.com/doorbuster/doorbuster/gateway/client"
)

func newKeys() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Manage the API keys of operators and merchants, and the certificates of nodes",
		Long: `Manage the API keys of operators and merchants, and the certificates of nodes.

The commands about API keys work on the journal of --data or --postgres. While a
server has it open, and with --admin alone, they ask the server through its admin
listener, which answers an operator's key only: give one with --key or DOORBUSTER_KEY.
The first key is made while no server runs. A server in open mode looks at no keys, and makes none.`,
	}
	cmd.AddCommand(newKeysCreate(), newKeysList(), newKeysRevoke(), newKeysNodeCert())
	return cmd
}

func newKeysCreate() *cobra.Command {
	var role, merchant string
	cmd := &cobra.Command{Use: "create", Short: "Make a key and print it, for the only time", Args: cobra.NoArgs}
	s := addSettings(cmd, "data", "postgres", "admin", "key")
	cmd.Flags().StringVar(&role, "role", "", "operator or merchant")
	cmd.Flags().StringVar(&merchant, "merchant", "", "id of the merchant whose key it is")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := gateway.CheckHolder(role, merchant); err != nil { // before a folder is made
			return err
		}
		return s.withKeys(cmd.Context(), makeFolder, func(keys keyring) error {
			_, full, err := keys.Create(cmd.Context(), role, merchant)
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), full)
			}
			return err
		})
	}
	return cmd
}

func newKeysList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the keys, without their secrets", Args: cobra.NoArgs}
	s := addSettings(cmd, "data", "postgres", "admin", "key")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return s.withKeys(cmd.Context(), needFolder, func(keys keyring) error {
			list, err := keys.List(cmd.Context())
			if err != nil {
				return err
			}
			out := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(out, "KEY\tROLE\tMERCHANT")
			for _, k := range list {
				fmt.Fprintf(out, "%s\t%s\t%s\n", k.ID, k.Role, k.Merchant)
			}
			return out.Flush()
		})
	}
	return cmd
}

func newKeysRevoke() *cobra.Command {
	cmd := &cobra.Command{Use: "revoke <key>", Short: "End a key", Args: exactlyOne}
	s := addSettings(cmd, "data", "postgres", "admin", "key")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return s.withKeys(cmd.Context(), needFolder, func(keys keyring) error { return keys.Revoke(cmd.Context(), args[0]) })
	}
	return cmd
}

// keyring is where the keys are: in a folder or behind a running server.
type keyring interface {
	Create(ctx context.Context, role, merchant string) (gateway.Key, string, error)
	List(ctx context.Context) ([]gateway.Key, error)
	Revoke(ctx context.Context, id string) error
}

// What to do about a data folder that is not there: only the first key may come
// before the first start.
const (
	needFolder = false
	makeFolder = true
)

// withKeys calls fn with the keys of the data folder, or, if a server has it
// open, with those of that server. Who names a server on the command line, and no
// journal, means that server.
func (s *settings) withKeys(ctx context.Context, mayMake bool, fn func(keyring) error) error {
	given := func(name string) bool { return s.table.Lookup(name).Changed }
	remote := given("admin") && !given("data") && !given("postgres")
	cfg, err := s.load()
	if err != nil {
		return err
	}
	if remote {
		return withRemoteKeys(cfg, nil, fn)
	}
	if err := mustExist(cfg); err != nil && !mayMake {
		return err
	}
	store, err := openOffline(ctx, cfg)
	if inUse(err) {
		return withRemoteKeys(cfg, err, fn)
	}
	if err != nil {
		return err
	}
	keys, err := gateway.LoadKeys(ctx, store.Tables())
	if err == nil {
		err = fn(localKeys{keys})
	}
	return errors.Join(err, store.Close())
}

type localKeys struct{ *gateway.Keys }

func (k localKeys) List(context.Context) ([]gateway.Key, error) { return k.Keys.List(), nil }

// withRemoteKeys asks the server that holds the journal, as held says if that is how
// it was found.
func withRemoteKeys(cfg config.Config, held error, fn func(keyring) error) error {
	c, err := client.New(client.Config{Addr: cfg.Admin, Token: cfg.Key})
	if err != nil {
		return err
	}
	defer c.Close()
	err = fn(remoteKeys{c})
	if errors.Is(err, errNoAnswer) {
		return errors.Join(whereToAsk(err), held)
	}
	return err
}

// remoteKeys asks the admin listener of a running server.
type remoteKeys struct{ client *client.Client }

const keysPath = "/api/v1/admin/keys"

func (k remoteKeys) Create(ctx context.Context, role, merchant string) (gateway.Key, string, error) {
	ask := map[string]string{"role": role}
	if merchant != "" {
		ask["merchant_id"] = merchant
	}
	body, err := json.Marshal(ask)
	if err != nil {
		return gateway.Key{}, "", err
	}
	var made struct {
		gateway.Key
		Full string `json:"key"`
	}
	err = call(ctx, k.client, client.Call{Method: "POST", Path: keysPath, Body: body}, &made)
	return made.Key, made.Full, err
}

func (k remoteKeys) List(ctx context.Context) (all []gateway.Key, err error) {
	for path := keysPath; path != ""; {
		var page struct {
			Data       []gateway.Key
			HasMore    bool   `json:"has_more"`
			NextCursor string `json:"next_cursor"`
		}
		if err := call(ctx, k.client, client.Call{Method: "GET", Path: path}, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Data...)
		path = ""
		if page.HasMore {
			path = keysPath + "?cursor=" + url.QueryEscape(page.NextCursor)
		}
	}
	return all, nil
}

func (k remoteKeys) Revoke(ctx context.Context, id string) error {
	return call(ctx, k.client, client.Call{Method: "DELETE", Path: keysPath + "/" + url.PathEscape(id)}, nil)
}

// errNoAnswer says that there is no server where one was asked.
var errNoAnswer = errors.New("no server answers")

// whereToAsk adds to an error of call, if nobody answered, how to say who should.
func whereToAsk(err error) error {
	if errors.Is(err, errNoAnswer) {
		return fmt.Errorf("%w; --admin or %s names the admin listener of the server", err, config.Env("admin"))
	}
	return err
}

// call expects success and decodes the answer into reply, unless that is nil.
func call(ctx context.Context, c *client.Client, ask client.Call, reply any) error {
	answer, err := c.Do(ctx, ask)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	if answer.Status/100 != 2 {
		return refused(answer)
	}
	if reply == nil {
		return nil
	}
	return json.Unmarshal(answer.Body, reply)
}

// refused is a server's answer that says no, as a sentence.
func refused(answer client.Answer) error {
	var p struct{ Code, Detail string }
	if json.Unmarshal(answer.Body, &p) != nil || p.Code == "" {
		return fmt.Errorf("the server answered %d: %s", answer.Status, answer.Body)
	}
	err := fmt.Errorf("the server says: %s (%d %s)", p.Detail, answer.Status, p.Code)
	if answer.Status == 401 {
		err = fmt.Errorf("%w; give an operator's key with --key or %s; the first one is made by keys create while no server runs", err, config.Env("key"))
	}
	return err
}
