//go:build race

package unpack

// raceDetector multiplies the memory of a process.
const raceDetector = true
