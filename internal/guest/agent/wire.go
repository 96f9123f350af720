package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/halevm/hale/internal/guest/mux"
)

const (
	// drainPatience is how long output that is written already may take to be read, once everything that could write
	// more was killed. Only what escaped (or lingers) holds a pipe open longer.
	drainPatience = 500 * time.Millisecond
	// maxLeft is how much is then still taken of a pipe that is never empty: what a pipe can hold.
	maxLeft = 1 << 20
)

// wires are the descriptors between an exec and the agent.
type wires struct {
	child    []*os.File // the child's 0, 1 and 2
	input    *os.File   // the agent's end of its stdin; nil: none
	outputs  []*output
	terminal *os.File
	tail     *tail // with Capture
}

// An output is the agent's end of what a child writes to.
type output struct {
	*pipeEnd
	to     io.Writer
	stream *mux.Stream // nil: nobody's
}

// wire makes the descriptors of a command.
func (e *execution) wire(c *command) (w *wires, err error) {
	w = &wires{}
	defer func() {
		if err != nil {
			w.closeTheirs()
			w.closeOurs()
			for _, o := range w.outputs {
				o.Close()
			}
			err = fmt.Errorf("its input and output: %w", err)
		}
	}()
	if e.r.TTY && e.r.Capture <= 0 {
		return w, w.makeTerminal(e, c)
	}
	var stdin *os.File
	if e.r.Stdin && e.stdin != nil {
		if stdin, w.input, err = os.Pipe(); err != nil {
			return w, err
		}
	} else if stdin, err = os.Open(os.DevNull); err != nil {
		return w, err
	}
	w.child = append(w.child, stdin)
	if e.r.Capture > 0 {
		w.tail = &tail{keep: e.r.Capture}
		out, err := w.makeOutput(c, w.tail, nil)
		w.child = append(w.child, out, out)
		return w, err
	}
	for _, s := range []*mux.Stream{e.stdout, e.stderr} {
		out, err := w.makeOutput(c, s, s)
		if err != nil {
			return w, err
		}
		w.child = append(w.child, out)
	}
	return w, nil
}

func (w *wires) makeTerminal(e *execution, c *command) error {
	ours, theirs, err := pty.Open()
	if err != nil {
		return err
	}
	w.terminal = ours
	w.child = []*os.File{theirs, theirs, theirs}
	e.mu.Lock()
	e.size(ours) // before the command looks; what is asked for from here on comes when it has been started
	e.mu.Unlock()
	// A program may open /dev/tty or its name again.
	if err := theirs.Chown(int(c.id.uid), -1); err != nil && os.Geteuid() == 0 {
		return err
	}
	if e.r.Stdin {
		w.input = ours
	}
	w.outputs = append(w.outputs, &output{pipeEnd: &pipeEnd{File: ours}, to: e.stdout, stream: e.stdout})
	return nil
}

func (w *wires) makeOutput(c *command, to io.Writer, s *mux.Stream) (*os.File, error) {
	ours, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	w.outputs = append(w.outputs, &output{pipeEnd: &pipeEnd{File: ours}, to: to, stream: s})
	// /dev/stdout is the pipe by its name, which only its owner may open.
	if err := theirs.Chown(int(c.id.uid), int(c.id.gid)); err != nil && os.Geteuid() == 0 {
		theirs.Close()
		return nil, err
	}
	return theirs, nil
}

// closeTheirs closes the child's ends, which it has by now.
func (w *wires) closeTheirs() {
	for _, f := range w.child {
		f.Close() // a file that stands there twice is closed once; the second time is an error that means nothing
	}
}

// closeOurs closes the input; the outputs are closed by who copies them.
func (w *wires) closeOurs() {
	if w.input != nil && w.input != w.terminal {
		w.input.Close()
	}
}

// copy starts to copy, each output on a goroutine that ends with it.
func (w *wires) copy(e *execution, flushed *sync.WaitGroup) {
	for _, o := range w.outputs {
		flushed.Add(1)
		e.a.start("exec output", func() {
			defer flushed.Done()
			defer o.closeFor(e)
			if _, err := io.Copy(o.to, o.pipeEnd); err != nil {
				io.Copy(io.Discard, o.pipeEnd) // the host takes no more; the command is not to wait for it
			}
			if o.stream != nil {
				o.stream.CloseWrite()
			}
		})
	}
	if w.input == nil {
		return
	}
	e.a.start("exec input", func() {
		feed(w.input, e.stdin, func() {
			if w.terminal != nil {
				w.terminal.Write([]byte{4}) // ^D: what a terminal has for the end of input
				return
			}
			w.input.Close()
		})
	})
}

// closeFor closes the agent's end; a terminal cannot be resized from then on.
func (o *output) closeFor(e *execution) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.terminal == o.File {
		e.terminal = nil
	}
	o.Close()
}

// endOutput has the copying end with what has been written by now.
func (w *wires) endOutput() {
	for _, o := range w.outputs {
		o.SetReadDeadline(time.Now().Add(drainPatience))
	}
}

// A pipeEnd reads what a child writes. With a read deadline it ends there: it takes what is in the pipe at that moment,
// and then says io.EOF, although somebody may hold the pipe open still.
type pipeEnd struct {
	*os.File
	left int // bytes that were taken after the deadline
}

func (p *pipeEnd) Read(b []byte) (int, error) {
	n, err := p.File.Read(b)
	switch {
	case n > 0 || err == nil:
		return n, nil
	case errors.Is(err, unix.EIO): // a terminal that nobody has open any more
		return 0, io.EOF
	case errors.Is(err, os.ErrDeadlineExceeded):
		return p.readLeft(b)
	}
	return 0, err
}

// readLeft reads without waiting. Past its deadline the File itself reads nothing, not even what is there.
func (p *pipeEnd) readLeft(b []byte) (n int, err error) {
	raw, err := p.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := raw.Control(func(fd uintptr) {
		n, err = unix.Read(int(fd), b)
	})
	if cerr != nil || err != nil || n <= 0 || p.left >= maxLeft {
		return 0, io.EOF
	}
	p.left += n
	return n, nil
}

// WriteTo hides that of os.File, which would go around Read.
func (p *pipeEnd) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{p})
}

// A tail keeps the last bytes of what is written to it.
type tail struct {
	keep int
	mu   sync.Mutex
	b    []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p[max(0, len(p)-t.keep):]...)
	if len(t.b) > 2*t.keep {
		t.b = append(t.b[:0], t.b[len(t.b)-t.keep:]...)
	}
	return len(p), nil
}

func (t *tail) bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b[max(0, len(t.b)-t.keep):]
}
