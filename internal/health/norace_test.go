//go:build !race

package health

const raceDetector = false
