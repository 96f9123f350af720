package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Confinement is what a program that is started gets to live in. Its standard input is empty, its descriptors are
// those that its command hands to it, and it has no capabilities and cannot gain any.
type Confinement struct {
	Namespaces bool   // empty ones, for the network and for IPC; the starting process needs CAP_SYS_ADMIN in its user namespace
	Landlock   bool   // only Rules, no TCP, no signals and no abstract sockets to the outside
	Rules      []Rule // what it may open
	Reopen     []int  // numbers, in it, of descriptors that it may open again for reading, by /proc/self/fd/N
	Seccomp    bool   // the filter of this package
	MaxFile    int64  // bytes that a file can grow to by its hand; 0: no bound
}

// order is what the program that confines itself is told on its standard input.
type order struct {
	Path     string
	Landlock bool
	Rules    []Rule
	Reopen   []int
	Seccomp  bool
	MaxFile  int64
	Files    int // descriptors beyond the three
}

// emptyNamespaces are those that a confined program has to itself, with nothing in them: no device that is up, and none of the
// shared memory, semaphores and message queues of others of its uid.
const emptyNamespaces = syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC

// confinedName is the name (argument 0) under which the program starts itself to be confined.
const confinedName = "hale-confined"

func init() {
	if len(os.Args) == 0 {
		return
	}
	switch os.Args[0] {
	case confinedName:
		fmt.Fprintln(os.Stderr, become())
		unix.Exit(127)
	case trialName:
		unix.Exit(trial())
	case trialEndName:
		unix.Exit(0)
	}
}

// Prepare has cmd started confined to c. cmd's path, arguments, environment and files are the program's; its standard
// input must not be set. Release is called once cmd has been started, or not: until then the program has not begun.
func (c Confinement) Prepare(cmd *exec.Cmd) (release func() error, err error) {
	if cmd.Err != nil {
		return nil, cmd.Err
	}
	// The kernel's own word, at once: from inside, where there are rules, it would only be a permission that is denied.
	if err := unix.Access(cmd.Path, unix.X_OK); err != nil {
		return nil, &os.PathError{Op: "execute", Path: cmd.Path, Err: err}
	}
	o := order{Path: cmd.Path, Landlock: c.Landlock, Rules: c.Rules, Reopen: c.Reopen, Seccomp: c.Seccomp, MaxFile: c.MaxFile, Files: len(cmd.ExtraFiles)}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdin = r
	cmd.Path = "/proc/self/exe"
	cmd.Args = append([]string{confinedName}, cmd.Args...)
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	if c.Namespaces {
		cmd.SysProcAttr.Cloneflags |= emptyNamespaces
	}
	return func() error {
		r.Close()
		err := json.NewEncoder(w).Encode(o)
		return errors.Join(err, w.Close())
	}, nil
}

// become is the confined program's part: it takes everything away from this thread, and becomes the program.
func become() error {
	runtime.LockOSThread()
	var o order
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("the sandbox was abandoned")
		}
		return fmt.Errorf("the sandbox's order: %w", err)
	}
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", os.DevNull, err)
	}
	if err := unix.Dup3(null, 0, 0); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	if err := KeepFromChildren(3 + o.Files); err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	if err := limit(o); err != nil {
		return err
	}
	if err := renounce(); err != nil {
		return err
	}
	if o.Landlock {
		if err := shutIn(o); err != nil {
			return err
		}
	}
	if o.Seccomp {
		if err := enforceFilter(); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s: %w", o.Path, syscall.Exec(o.Path, os.Args[1:], os.Environ()))
}

// limit keeps a program from filling the disk by a file that it may write to, or by a dump of its memory when it dies.
func limit(o order) error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, new(unix.Rlimit)); err != nil {
		return fmt.Errorf("RLIMIT_CORE: %w", err)
	}
	if o.MaxFile == 0 {
		return nil
	}
	// As low as it is already, where it is lower: to raise it is not ours.
	var is unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &is); err != nil {
		return fmt.Errorf("RLIMIT_FSIZE: %w", err)
	}
	most := min(is.Max, uint64(o.MaxFile))
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: most, Max: most}); err != nil {
		return fmt.Errorf("RLIMIT_FSIZE: %w", err)
	}
	return nil
}

// renounce gives up the capabilities of this thread, and the ways to new ones: with no_new_privs even a uid 0 is given none
// at its next exec that it does not have before.
func renounce() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_NO_NEW_PRIVS: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("ambient capabilities: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}

// Reopened is the path by which a process opens a file once more that it has as fd.
func Reopened(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

func shutIn(o order) error {
	abi, err := landlockABI()
	if err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	rules := append([]Rule{{o.Path, Read | Execute}}, o.Rules...)
	for _, fd := range o.Reopen {
		rules = append(rules, Rule{Reopened(fd), Read})
	}
	rs, err := newRuleset(abi, rules, true)
	if err != nil {
		return err
	}
	defer rs.close()
	return rs.enforce()
}
