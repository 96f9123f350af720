//go:build race

package image

// raceDetector says that everything takes ten times as long.
const raceDetector = true
