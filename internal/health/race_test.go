//go:build race

package health

// raceDetector says that memory is not what it will be.
const raceDetector = true
