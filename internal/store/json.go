package store

import (
	"encoding/json"
	"fmt"
)

// A document is what a JSON file holds: a version, so that a later program knows what it reads, and the value.
type document[T any] struct {
	Version int `json:"version"`
	Value   T   `json:"value"`
}

// EncodeJSON is what WriteJSON writes.
func EncodeJSON[T any](version int, v T) ([]byte, error) {
	b, err := json.MarshalIndent(document[T]{version, v}, "", "  ")
	return append(b, '\n'), err
}

// DecodeJSON reads what EncodeJSON gave; another version is an error.
func DecodeJSON[T any](version int, data []byte) (T, error) {
	var head struct {
		Version int `json:"version"`
	}
	var doc document[T]
	if err := json.Unmarshal(data, &head); err != nil {
		return doc.Value, err
	}
	if head.Version != version {
		return doc.Value, fmt.Errorf("version %d, but this program reads version %d", head.Version, version)
	}
	err := json.Unmarshal(data, &doc)
	return doc.Value, err
}

// WriteJSON writes v to name as Root.WriteFile does.
func WriteJSON[T any](r *Root, name string, version int, v T) error {
	data, err := EncodeJSON(version, v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", r.Path(name), err)
	}
	return r.WriteFile(name, data)
}

// ReadJSON reads what WriteJSON wrote. A missing file is fs.ErrNotExist. One that is torn, foreign, larger than
// limit or of another version has been set aside when the error, an *Unreadable, comes back.
func ReadJSON[T any](r *Root, name string, version int, limit int64) (T, error) {
	var v T
	data, err := r.ReadFile(name, limit)
	if err == nil {
		if v, err = DecodeJSON[T](version, data); err == nil {
			return v, nil
		}
		err = &Unreadable{Path: r.Path(name), Err: err}
	}
	bad, ok := err.(*Unreadable)
	if !ok {
		return v, err
	}
	aside, aerr := r.SetAside(name)
	if aerr != nil {
		return v, fmt.Errorf("%w; %w", err, aerr)
	}
	bad.Aside = r.Path(aside)
	return v, bad
}
