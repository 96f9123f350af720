package instance

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A Size is a number of bytes with the words it was given in: "GB" is 1024³, and the API echoes it as given.
type Size struct {
	Bytes int64  `json:"bytes"`
	Text  string `json:"text"`
}

// The units. What users write is "GB" and what they mean is what memory is sold in, so every unit is a power of 1024.
var units = map[string]float64{
	"": 1, "b": 1,
	"k": 1 << 10, "kb": 1 << 10, "kib": 1 << 10,
	"m": 1 << 20, "mb": 1 << 20, "mib": 1 << 20,
	"g": 1 << 30, "gb": 1 << 30, "gib": 1 << 30,
	"t": 1 << 40, "tb": 1 << 40, "tib": 1 << 40,
}

// ParseSize reads "1GB", "512MB", "1.5 g" or a bare number of bytes: a positive number, and a unit in any case.
func ParseSize(text string) (Size, error) {
	s := strings.TrimSpace(text)
	end := strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if end < 0 {
		end = len(s)
	}
	unit, ok := units[strings.ToLower(strings.TrimSpace(s[end:]))]
	n, err := strconv.ParseFloat(s[:end], 64)
	if !ok || err != nil || len(s) > 32 {
		return Size{}, fmt.Errorf("%.32q is no size: want a number and a unit, such as 512MB or 1GB", text)
	}
	bytes := math.Floor(n * unit)
	switch {
	case bytes < 1:
		return Size{}, fmt.Errorf("%.32q is no size: it must be at least one byte", text)
	case bytes >= 1<<60:
		return Size{}, fmt.Errorf("%.32q is too large for a size", text)
	}
	return Size{Bytes: int64(bytes), Text: text}, nil
}

// String is the size as it was given, or in the largest unit that says it without a fraction.
func (s Size) String() string {
	if s.Text != "" {
		return s.Text
	}
	for _, u := range []struct {
		name string
		n    int64
	}{{"TB", 1 << 40}, {"GB", 1 << 30}, {"MB", 1 << 20}, {"KB", 1 << 10}} {
		if s.Bytes >= u.n && s.Bytes%u.n == 0 {
			return strconv.FormatInt(s.Bytes/u.n, 10) + u.name
		}
	}
	return strconv.FormatInt(s.Bytes, 10) + "B"
}
