package probe

import "bytes"

// A plain is the head of an answer, as far as it was read.
type plain struct {
	status int    // 0: it is not a plain one, or not complete
	read   []byte // what has come so far, a part of the body perhaps
}

// readPlain reads until the head of a plain answer is complete, which almost all are at once. Any other is left to net/http, which
// goes on with what was read, and with the error.
func (x *exchange) readPlain() (plain, error) {
	n := 0
	for n < len(x.buffer) {
		got, err := x.conn.Read(x.buffer[n:])
		n += got
		status, more := parsePlain(x.buffer[:n])
		if status != 0 || !more || err != nil {
			return plain{status, x.buffer[:n]}, err
		}
	}
	return plain{0, x.buffer[:]}, nil
}

// parsePlain returns the final status of an answer whose head is complete in b and is as plain as servers send it; else 0, and whether
// more bytes can make it one. It is strict, so that it says nothing that net/http would not: FuzzPlain holds the two together.
func parsePlain(b []byte) (status int, more bool) {
	line, rest, whole := bytes.Cut(b, crlf)
	if !whole {
		return 0, len(line) < 256 && bytes.IndexByte(line, '\n') < 0
	}
	// HTTP/1.1 200 OK
	const version = "HTTP/1."
	if len(line) < len(version)+len("1 200") || string(line[:len(version)]) != version || line[7] != '0' && line[7] != '1' || line[8] != ' ' ||
		len(line) > 12 && line[12] != ' ' || !printableASCII(line) {
		return 0, false
	}
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return 0, false
		}
		status = 10*status + int(c-'0')
	}
	if status < 200 { // an interim answer, or none at all
		return 0, false
	}
	lengths := 0
	for {
		line, rest, whole = bytes.Cut(rest, crlf)
		switch {
		case !whole:
			return 0, bytes.IndexByte(line, '\n') < 0
		case len(line) == 0:
			return status, false
		}
		name, value, ok := bytes.Cut(line, colon)
		if !ok || !token(name) || !printableASCII(value) {
			return 0, false
		}
		// What says how long the body is can make an answer invalid.
		switch {
		case asciiFold(name, "content-length"):
			if lengths++; lengths > 1 || !length(bytes.Trim(value, " \t")) {
				return 0, false
			}
		case asciiFold(name, "transfer-encoding"), asciiFold(name, "trailer"):
			return 0, false
		}
	}
}

var (
	crlf  = []byte("\r\n")
	colon = []byte(":")
)

// printableASCII reports whether b has nothing else but tabs.
func printableASCII(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c > '~' {
			return false
		}
	}
	return true
}

// token reports whether b is the name of a header.
func token(b []byte) bool {
	for _, c := range b {
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return len(b) > 0
}

// asciiFold reports whether a token is a word of small letters and dashes, in whatever case.
func asciiFold(b []byte, word string) bool {
	if len(b) != len(word) {
		return false
	}
	for i, c := range b {
		if c|0x20 != word[i]|0x20 {
			return false
		}
	}
	return true
}

// length reports whether b is a number that no reader stumbles over.
func length(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return 0 < len(b) && len(b) <= 18
}
