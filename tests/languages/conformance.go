// The conformance list through Go, in this process and through a daemon:
// conformance MODEL TEST_MODEL DIR [SOCKET], as conformance.py.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"vivarium"
)

const prompt = "Once upon a time"

type settings = map[string]any

var (
	sixty   = settings{"max_new_tokens": 60}
	twenty  = settings{"max_new_tokens": 20}
	endless = settings{"max_new_tokens": 100000, "ignore_eos": true}
	where   = "in-process"
	bg      = context.Background()
)

func check(name string, good bool) {
	word := "ok"
	if !good {
		word = "not ok"
	}
	fmt.Printf("%s - %s: %s\n", word, where, name)
	if !good {
		os.Exit(1)
	}
}

// tell writes a line that must be the same in every language.
func tell(what, text string) {
	fmt.Printf("# %s: %s\n", what, strings.ReplaceAll(text, "\n", " "))
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

func say(ctx context.Context, m *vivarium.Model, text string, s *vivarium.Settings) (string, int, error) {
	var all strings.Builder
	n := 0
	err := m.Generate(ctx, text, s, func(piece string) error {
		n++
		all.WriteString(piece)
		return nil
	})
	return all.String(), n, err
}

func start(ctx context.Context, m *vivarium.Model, p settings) *vivarium.Job {
	return vivarium.Must(m.Submit(ctx, "generate", []vivarium.Input{vivarium.Text("text", prompt)}, &vivarium.Settings{Params: p}))
}

func jobs(m *vivarium.Model, expected string) {
	got, pieces, err := say(bg, m, prompt, &vivarium.Settings{Params: sixty})
	check("load, infer and stream", err == nil && pieces > 10 && got == expected)

	ctx, cancel := context.WithCancel(bg)
	job := start(ctx, m, endless)
	events := job.Events()
	<-events
	cancel()
	for range events {
	}
	check("cancel midway by the context", errors.Is(job.Err(), vivarium.Cancelled) && errors.Is(job.Err(), context.Canceled))

	job = start(bg, m, endless)
	vivarium.Must(job.Next())
	job.Cancel()
	for err = nil; err == nil; _, err = job.Next() {
	}
	job.Close()
	check("cancel midway by hand", errors.Is(err, vivarium.Cancelled) && !errors.Is(err, context.Canceled))
	_, err = job.Next()
	check("a job that was closed keeps its end", errors.Is(err, vivarium.Cancelled))

	job = start(bg, m, endless)
	<-job.Events()
	job.Close()
	check("who stops reading closes the job", true)

	begun := time.Now()
	ctx, cancel = context.WithTimeout(bg, 5*time.Millisecond)
	_, _, err = say(ctx, m, prompt, &vivarium.Settings{Params: endless})
	cancel()
	late := errors.Is(err, vivarium.Deadline) || errors.Is(err, context.DeadlineExceeded)
	check("deadline of the context", late && time.Since(begun) < 20*time.Second)

	_, _, err = say(bg, m, "x", &vivarium.Settings{Params: settings{"top_p": 7}})
	var e *vivarium.Error
	check("bad input names the place", errors.As(err, &e) && e.Code == vivarium.BadInput && strings.Contains(e.Where, "top_p"))
	tell("bad input", err.Error())
}

func tensors(m, null *vivarium.Model, expected string) {
	other := start(bg, m, sixty)
	numbers := make([]float32, 150528)
	for i := range numbers {
		numbers[i] = float32(i)
	}
	had := allocated()
	job := vivarium.Must(null.Submit(bg, "forward", []vivarium.Input{vivarium.Of("x", numbers, 3, 224, 224)}, nil))
	event := vivarium.Must(job.Next())
	seen, err := vivarium.Data[float32](event.Tensor)
	copied := allocated() - had
	same := err == nil && len(seen) == len(numbers) && len(event.Tensor.Shape) == 3 && event.Tensor.Shape[2] == 224
	for i := 0; same && i < len(numbers); i++ {
		same = seen[i] == numbers[i]
	}
	check("a tensor in and out, seen where it lies", event.Name == "y" && same)
	check("without a copy of its 588 KiB in Go", copied < 100000)
	_, err = vivarium.Data[int32](event.Tensor)
	check("as what it is not, it is refused", err != nil)
	_, err = job.Next()
	check("the end is io.EOF", err == io.EOF && strings.HasPrefix(job.Counters(), "{"))
	job.Close()
	text := ""
	for e := range other.Events() {
		text += e.Text
	}
	check("two models at once", text == expected && other.Err() == nil)
	_, err = null.Submit(bg, "forward", []vivarium.Input{vivarium.Of("x", numbers, 2, 2)}, nil)
	check("a shape that does not fit", errors.Is(err, vivarium.BadInput))
}

func sessions(m *vivarium.Model, folder string) {
	session := vivarium.Must(m.Session(""))
	defer session.Close()
	on := func(s *vivarium.Session) *vivarium.Settings { return &vivarium.Settings{Params: twenty, Session: s} }
	say(bg, m, prompt, on(session))
	second, _, err := say(bg, m, " Then", on(session))
	check("a session goes on", err == nil && second != "")
	path := filepath.Join(folder, "go.session")
	err = session.Save(path)
	third, _, _ := say(bg, m, " And", on(session))
	resumed := vivarium.Must(m.Session(path))
	again, _, _ := say(bg, m, " And", on(resumed))
	resumed.Close()
	check("a session is saved and resumed", err == nil && third == again && third != "")
}

func resident() (bytes int) {
	text := vivarium.Must(os.ReadFile("/proc/self/statm"))
	fmt.Sscanf(string(text), "%d %d", new(int), &bytes)
	return bytes * 4096
}

func descriptors() int {
	return len(vivarium.Must(os.ReadDir("/proc/self/fd")))
}

func nullJobs(null *vivarium.Model, n int) {
	for i := 0; i < n; i++ {
		job := vivarium.Must(null.Submit(bg, "forward", []vivarium.Input{vivarium.Of("x", []float32{1, 2, 3}, 3)}, nil))
		for err := error(nil); err == nil; _, err = job.Next() {
		}
		job.Close()
	}
}

func main() {
	here := vivarium.Must(vivarium.Open(vivarium.Options{}))
	mine := vivarium.Must(here.Load(os.Args[1], nil))
	expected, _, _ := say(bg, mine, prompt, &vivarium.Settings{Params: sixty})
	tell("said", expected)
	rt := here
	if len(os.Args) > 4 {
		where = "daemon"
		rt = vivarium.Must(vivarium.Connect(os.Args[4]))
	}
	m, null := vivarium.Must(rt.Load(os.Args[1], nil)), vivarium.Must(rt.Load(os.Args[2], nil))
	jobs(m, expected)
	_, err := rt.Load("/nowhere/at/all", nil)
	check("a model that is not there", errors.Is(err, vivarium.Never) && strings.Contains(err.Error(), "/nowhere/at/all"))
	tell("absent", err.Error())
	tensors(m, null, expected)
	sessions(m, os.Args[3])
	text := vivarium.Must(m.Detokenize(vivarium.Must(m.Tokenize("a little dog", true)), true))
	check("tokens there and back", strings.Contains(text, "little dog"))
	check("describe", strings.Contains(string(vivarium.Must(m.Describe())), "generate"))
	answers := make(chan string)
	for i := 0; i < 8; i++ {
		go func() {
			s, _, _ := say(bg, m, prompt, &vivarium.Settings{Params: sixty})
			answers <- s
		}()
	}
	same := true
	for i := 0; i < 8; i++ {
		same = <-answers == expected && same
	}
	check("eight goroutines", same)
	nullJobs(null, 300)
	debug.FreeOSMemory()
	before, files := resident(), descriptors()
	nullJobs(null, 1000)
	// Go's own heap grows and shrinks by megabytes, and the host closes a job's descriptor a little after the job.
	settled := false
	for i := 0; i < 100 && !settled; i++ {
		debug.FreeOSMemory()
		settled = resident()-before < 8<<20 && descriptors() <= files
		time.Sleep(20 * time.Millisecond)
	}
	check("no leak over 1,000 jobs", settled)
	if !settled {
		fmt.Printf("#   %d and %d bytes, %d and %d descriptors\n", before, resident(), files, descriptors())
	}
	job := start(bg, m, endless)
	rt.Close()
	m.Close()
	_, err = job.Next()
	check("a job outlives its closed model", err == nil)
	job.Close()
	_, err = m.Describe()
	check("a closed model says so", err == vivarium.ErrClosed)
}
