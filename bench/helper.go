package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/halevm/hale/bench/peer"
	"github.com/halevm/hale/bench/target"
)

// helperCommand is the first argument of this program where it runs beside the bench, so that what it does is not counted with
// something else: helper NAME. It says that it is there, answers requests on its standard input, and ends with it.
const helperCommand = "helper"

// What runs in processes of its own. Each reads its configuration, and then serves requests.
var helpers = map[string]func(*json.Decoder, *json.Encoder) error{
	"target": target.Serve,
	"peer":   peer.Serve,
	"burn":   burn,
}

// help is a helper's main. It returns the exit code.
func help(args []string) int {
	err := fmt.Errorf("there is no helper %q", args)
	if len(args) == 1 && helpers[args[0]] != nil {
		err = helpers[args[0]](json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout))
	}
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// A helper is this program once more.
type helper struct {
	pid   int
	in    *json.Encoder
	out   *json.Decoder
	close func() error
}

// startHelper starts one with its configuration. Variables are added to its environment.
func startHelper(ctx context.Context, name string, config any, env ...string) (*helper, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, helperCommand, name)
	cmd.Env = append(os.Environ(), env...)
	var words bytes.Buffer
	cmd.Stderr = &words
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	h := &helper{pid: cmd.Process.Pid, in: json.NewEncoder(in), out: json.NewDecoder(out)}
	h.close = func() error {
		in.Close()
		limit := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		defer limit.Stop()
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("helper %s: %w: %s", name, err, words.String())
		}
		return nil
	}
	if err := h.ask(config, new(json.RawMessage)); err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

// ask sends a request, and waits for its answer.
func (h *helper) ask(request, answer any) error {
	if err := h.in.Encode(request); err != nil {
		return err
	}
	return h.out.Decode(answer)
}
