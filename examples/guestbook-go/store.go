package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// An Entry of the guestbook.
type Entry struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
	Text string `json:"text"`
}

// A Store keeps entries, visits and files in a folder:
//
//	entries/1.json   an entry
//	visits/42        an empty file, whose name is the number of visits
//	files/_NAME      a file that was put
//	new/             what is being written
//
// Many instances use it at the same time, and any of them may be stopped at
// any point. There are no locks, which such a one would leave behind: what is
// written gets its name in one step, when it is complete.
type Store struct{ dir string }

// Add keeps an entry under the next free number.
func (s Store) Add(entry Entry) (Entry, error) {
	dir, err := s.folder("entries")
	if err != nil {
		return Entry{}, err
	}
	earlier, err := os.ReadDir(dir)
	if err != nil {
		return Entry{}, err
	}
	for entry.ID = len(earlier) + 1; ; entry.ID++ {
		content, err := json.Marshal(entry)
		if err != nil {
			return Entry{}, err
		}
		// Unlike a rename, a link replaces nothing: the number is still free, or taken.
		err = s.write(func(file *os.File) error {
			_, err := file.Write(content)
			return err
		}, os.Link, s.entry(entry.ID))
		if !errors.Is(err, fs.ErrExist) {
			return entry, err
		}
	}
}

// Entries returns all entries, oldest first.
func (s Store) Entries() ([]Entry, error) {
	entries := []Entry{}
	for id := 1; ; id++ {
		entry, err := s.Entry(id)
		if errors.Is(err, fs.ErrNotExist) {
			return entries, nil
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry)
	}
}

// Entry returns one entry. The error is fs.ErrNotExist if there is none.
func (s Store) Entry(id int) (Entry, error) {
	content, err := os.ReadFile(s.entry(id))
	if err != nil {
		return Entry{}, err
	}
	var entry Entry
	if err := json.Unmarshal(content, &entry); err != nil {
		return Entry{}, fmt.Errorf("entry %d: %w", id, err)
	}
	return entry, nil
}

// Visits returns the number of visits.
func (s Store) Visits() (int, error) {
	for {
		names, err := os.ReadDir(filepath.Join(s.dir, "visits"))
		if errors.Is(err, fs.ErrNotExist) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		if len(names) > 0 {
			return strconv.Atoi(names[len(names)-1].Name())
		}
		// It got another name while the folder was read.
	}
}

// Visit counts a visit, and returns the number of visits with it.
func (s Store) Visit() (int, error) {
	if err := s.beginVisits(); err != nil {
		return 0, err
	}
	for {
		count, err := s.Visits()
		if err != nil {
			return 0, err
		}
		// One of those that rename it finds it, all others try again.
		err = os.Rename(s.visits(count), s.visits(count+1))
		if !errors.Is(err, fs.ErrNotExist) {
			return count + 1, err
		}
	}
}

// File opens a file that was put. The error is fs.ErrNotExist if there is none.
func (s Store) File(name string) (*os.File, error) {
	return os.Open(s.file(name))
}

// PutFile keeps a file, in place of one of that name.
func (s Store) PutFile(name string, content io.Reader) error {
	if _, err := s.folder("files"); err != nil {
		return err
	}
	return s.write(func(file *os.File) error {
		_, err := io.Copy(file, content)
		return err
	}, os.Rename, s.file(name))
}

// write lets fill write a new file, which place then puts at path.
func (s Store) write(fill func(*os.File) error, place func(old, new string) error, path string) error {
	dir, err := s.folder("new")
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(dir, "")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	if err := errors.Join(fill(file), file.Sync(), file.Close()); err != nil {
		return err
	}
	return place(file.Name(), path)
}

// beginVisits makes the folder of visits, complete from its first moment.
func (s Store) beginVisits() error {
	dir := filepath.Join(s.dir, "visits")
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent, err := s.folder("new")
	if err != nil {
		return err
	}
	made, err := os.MkdirTemp(parent, "")
	if err != nil {
		return err
	}
	defer os.RemoveAll(made)
	if err := os.WriteFile(filepath.Join(made, "0"), nil, 0o666); err != nil {
		return err
	}
	if err := os.Rename(made, dir); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil // Another instance was first.
}

// folder makes a folder of the store if need be.
func (s Store) folder(name string) (string, error) {
	dir := filepath.Join(s.dir, name)
	return dir, os.MkdirAll(dir, 0o777)
}

func (s Store) entry(id int) string {
	return filepath.Join(s.dir, "entries", strconv.Itoa(id)+".json")
}

func (s Store) visits(count int) string {
	return filepath.Join(s.dir, "visits", strconv.Itoa(count))
}

// Behind an underscore, as what is no worker: an upload of x.js is none either.
func (s Store) file(name string) string {
	return filepath.Join(s.dir, "files", "_"+name)
}
