package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Support is which layers work on this host. A layer that does not has the reason.
type Support struct {
	UID        Layer // a uid of its own for each machine; not asked for where the daemon is an ordinary user
	Namespaces Layer // user namespaces, and in them those for the network and for IPC
	Landlock   Layer
	ABI        int // of Landlock
	Seccomp    Layer
}

// A Layer works, or there is a reason why not.
type Layer struct {
	Works bool
	Why   string // it does not
}

func layer(err error) Layer {
	if err != nil {
		return Layer{Why: err.Error()}
	}
	return Layer{Works: true}
}

// Lacks names the layers that do not work here, with their reasons.
func (s Support) Lacks() []string {
	var lacks []string
	for _, l := range []struct {
		name string
		Layer
	}{{"a uid for each machine", s.UID}, {"namespaces", s.Namespaces}, {"landlock", s.Landlock}, {"seccomp", s.Seccomp}} {
		if !l.Works {
			lacks = append(lacks, l.name+": "+l.Why)
		}
	}
	return lacks
}

// The names (argument 0) under which the program starts itself for the trial.
const (
	trialName    = "hale-sandbox-trial"
	trialEndName = "hale-sandbox-trial-end"
)

const trialTimeout = 5 * time.Second

// Detect finds out what works here, namespaces by making them. uids is where root's machines have their uids from.
func Detect(ctx context.Context, uids Range) Support {
	var s Support
	abi, err := landlockABI()
	s.ABI, s.Landlock, s.Seccomp = abi, layer(err), layer(seccompWorks())
	if err := threadsTogether(); err != nil {
		s.Landlock, s.Namespaces = layer(err), layer(err)
	}
	if os.Geteuid() != 0 {
		s.UID = Layer{Works: true}
		if s.Namespaces.Why == "" {
			s.Namespaces = layer(try(ctx, Identity{}, true))
		}
		return s
	}
	id := Identity{UID: uids.Last}
	s.UID = layer(errors.Join(try(ctx, id, false), uids.claimable()))
	switch {
	case !s.UID.Works:
		s.Namespaces = Layer{Why: "they need a uid for each machine"}
	case s.Namespaces.Why == "":
		s.Namespaces = layer(try(ctx, id, true))
	}
	return s
}

// threadsTogether tells whether this program can change all its threads at once.
func threadsTogether() error {
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETUID, 0, 0, 0); errno == unix.ENOTSUP {
		return errors.New("this program was built with cgo")
	}
	return nil
}

// try starts this program as id, in a namespace of its own, and has it start a child in empty namespaces.
func try(ctx context.Context, id Identity, namespace bool) error {
	ctx, cancel := context.WithTimeout(ctx, trialTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{trialEndName}
	if namespace {
		cmd.Args = []string{trialName}
	}
	cmd.Env = []string{"GOMAXPROCS=1"}
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = id.SysProcAttr(namespace)
	out, err := cmd.CombinedOutput()
	if words := strings.TrimSpace(string(out)); err != nil && words != "" {
		return errors.New(words)
	}
	return inWords(err)
}

// inWords says what clone means by its errors here.
func inWords(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC):
		return errors.New("no more namespaces may be made (user.max_user_namespaces, user.max_net_namespaces, user.max_ipc_namespaces)")
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w (is hale's binary executable for everyone?)", err)
	}
	return err
}

// trial is the first child's part.
func trial() int {
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{trialEndName}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: emptyNamespaces}
	if err := cmd.Run(); err != nil {
		fmt.Println("empty namespaces for the network and for IPC:", inWords(err))
		return 1
	}
	return 0
}
