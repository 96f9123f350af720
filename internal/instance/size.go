package instance

// A Size is a number of bytes with the words it was given in: "GB" is 1024³, and the API echoes it as given.
type Size struct {
	Bytes int64  `json:"bytes"`
	Text  string `json:"text"`
}
