package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/doorbuster/doorbuster/cmd/benchmark/page"
)

// page is where the chapters are written.
func (s *session) page() string { return filepath.Join(s.docs, "incident.md") }

const intro = `# The incident, chapter by chapter

A flash-sale service that took 1,200 orders/s fell to 47, with a P99 of 8.2 s, while
17,328 goroutines stood behind one mutex: these are its published figures. Six causes,
one chapter each. A chapter is a pair of programs of our own, as it was and as it is,
in one file that is meant to be read. What went wrong is written as one writes it on a
good day, without a straw man.

Everything below is written by ` + "`go run ./examples/incident`" + `, and every figure comes from
that run, unless it says "published". A table shows medians over the rounds of its
session, in which the sides took turns. The machine is small, so a chapter also says
what it does not show.
`

func chapterBegin(number int) string { return fmt.Sprintf("<!-- chapter %d -->\n", number) }
func chapterEnd(number int) string   { return fmt.Sprintf("<!-- end of chapter %d -->\n", number) }

// write replaces a chapter's section of the page and keeps the others'.
func (s *session) write(c chapter, conditions, section string) error {
	if s.docs == "" {
		return nil
	}
	path := s.page()
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	sections := sectionsOf(string(old))
	sections[c.number] = fmt.Sprintf("## %d. %s\n%s\n\nThe code: [`%s`](../examples/incident/%s). %s\n%s",
		c.number, c.title, strings.TrimSpace(c.prose), c.file, c.file, conditions, section)
	var text strings.Builder
	text.WriteString(intro)
	for _, c := range chapters {
		if chapter, ok := sections[c.number]; ok {
			text.WriteString("\n" + chapterBegin(c.number) + strings.TrimSpace(chapter) + "\n" + chapterEnd(c.number))
		}
	}
	return os.WriteFile(path, []byte(text.String()), 0o644)
}

// sectionsOf finds the sections of a page by their numbers.
func sectionsOf(page string) map[int]string {
	sections := make(map[int]string)
	for _, c := range chapters {
		_, rest, begun := strings.Cut(page, chapterBegin(c.number))
		text, _, ended := strings.Cut(rest, chapterEnd(c.number))
		if begun && ended {
			sections[c.number] = text
		}
	}
	return sections
}

// conditions says how the figures of a chapter come about. It is asked before
// the chapter runs: the load average afterwards is our own.
func (s *session) conditions(c chapter) string {
	when := time.UnixMilli(s.clock.Now().Wall).UTC().Format("2006-01-02 15:04")
	return fmt.Sprintf("Recorded %s UTC with\n`go run ./examples/incident --chapter %d --seconds %d` on %s; load average before: %s.\n",
		when, c.number, s.seconds, page.Machine(), page.LoadAverage())
}

// markdown renders the medians as a table.
func (r result) markdown() string { return markdown([]result{r}) }

// markdown renders results that share their columns as one table.
func markdown(results []result) string {
	var out strings.Builder
	header := results[0].header()
	fmt.Fprintf(&out, "\n| | | %s |\n|---|---|%s\n", strings.Join(header, " | "), strings.Repeat("---|", len(header)))
	for _, r := range results {
		for i, s := range r.sides {
			title := ""
			if i == 0 {
				title = r.title
			}
			fmt.Fprintf(&out, "| %s | %s | %s |\n", title, s.name, strings.Join(r.cells(i), " | "))
		}
	}
	return out.String()
}
