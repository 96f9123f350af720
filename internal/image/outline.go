package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
)

// An outline is the tar of a plan, as the writer of the file system reads it, in which a ticket stands for each block of a
// file's content: the writer lays out what it gets, and the content itself goes from the layer to the disk beside it (disk.go).
// Directories come from the root down, then what has no content, then the files in the order in which the layers have them, so
// that each layer is read in its order, then their other names.
type outline struct {
	ctx    context.Context
	layers []*openLayer
	m      *meter
	marks  *tickets
	issued int // tickets

	names [][]*placed // what is still to come
	head  bytes.Buffer
	file  *placed   // whose content is next
	plain io.Reader // its content, where no ticket can stand for it
	at    int64     // in it
	err   error
}

// Tickets are told from everything else on a disk by a secret that is new for each disk. A ticket is the secret, the number of a
// file and the number of the block in it.
type tickets struct {
	secret [16]byte
	files  []*placed
}

const ticketSize = 16 + 4 + 4

func newTickets() *tickets {
	t := &tickets{}
	rand.Read(t.secret[:])
	return t
}

func (t *tickets) put(b []byte, file int, block int64) {
	copy(b, t.secret[:])
	binary.LittleEndian.PutUint32(b[16:], uint32(file))
	binary.LittleEndian.PutUint32(b[20:], uint32(block))
}

// read returns the file that the block b is a ticket for, and what part of the file belongs into it.
func (t *tickets) read(b []byte) (f *placed, from int64, ok bool) {
	if len(b) < ticketSize || [16]byte(b) != t.secret {
		return nil, 0, false
	}
	f = t.files[binary.LittleEndian.Uint32(b[16:])]
	return f, int64(binary.LittleEndian.Uint32(b[20:])) * blockSize, true
}

func newOutline(ctx context.Context, p *plan, layers []*openLayer, m *meter) *outline {
	o := &outline{ctx: ctx, layers: layers, m: m, marks: newTickets(), names: [][]*placed{p.dirs, p.others}}
	o.names = append(append(o.names, p.files...), p.links)
	return o
}

// Read is called by the writer's goroutine only. Where content is next it writes no more than tickets into b.
func (o *outline) Read(b []byte) (int, error) {
	for o.err == nil && o.head.Len() == 0 && o.file == nil {
		o.err = o.next()
	}
	switch {
	case o.head.Len() > 0: // before the end, too
		return o.head.Read(b)
	case o.err != nil:
		return 0, o.err
	}
	n, err := o.content(b[:min(int64(len(b)), o.file.size-o.at)])
	o.at += int64(n)
	if o.at == o.file.size {
		o.head.Write(zeros[:-o.at&511]) // what a tar has after content
		o.file, o.plain = nil, nil
	}
	o.err = err
	return n, err
}

// next puts what comes next into o.head.
func (o *outline) next() error {
	if o.ctx.Err() != nil {
		return context.Cause(o.ctx)
	}
	for len(o.names) > 0 && len(o.names[0]) == 0 {
		o.names = o.names[1:]
	}
	o.head.Reset()
	if len(o.names) == 0 {
		if err := tar.NewWriter(&o.head).Close(); err != nil {
			return err
		}
		return io.EOF
	}
	n := o.names[0][0]
	o.names[0] = o.names[0][1:]
	if err := tar.NewWriter(&o.head).WriteHeader(n.header()); err != nil { // a writer of its own: it gets no content
		return fmt.Errorf("%s: %w", quote(n.path()), err)
	}
	if n.kind != tar.TypeReg || n.first != nil || n.size == 0 {
		return nil
	}
	o.file, o.at = n, 0
	if n.offset < 0 {
		r, err := o.layers[n.layer].entry(n.entry)
		o.plain = &metered{ctx: o.ctx, r: r, m: o.m}
		return err
	}
	o.marks.files = append(o.marks.files, n)
	return nil
}

// content is the next bytes of o.file: tickets, but what is too small for one.
func (o *outline) content(b []byte) (int, error) {
	if o.plain != nil {
		n, err := o.plain.Read(b)
		if err == io.EOF {
			err = nil
			if o.at+int64(n) < o.file.size {
				err = io.ErrUnexpectedEOF
			}
		}
		return n, err
	}
	for n := -o.at & (blockSize - 1); n < int64(len(b)); n += blockSize {
		at := o.at + n
		here := min(o.file.size-at, ticketSize)
		switch {
		case int64(len(b))-n < here && n == 0:
			return 0, io.ErrShortBuffer
		case int64(len(b))-n < here: // the next call has room for it
			return int(n), nil
		case here < ticketSize:
			if _, err := o.layers[o.file.layer].f.ReadAt(b[n:n+here], o.file.offset+at); err != nil {
				return int(n), err
			}
			o.m.add(here)
		default:
			o.marks.put(b[n:], len(o.marks.files)-1, at/blockSize)
			o.issued++
		}
	}
	return len(b), nil
}
