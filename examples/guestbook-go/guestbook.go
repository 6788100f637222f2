// A guestbook: net/http's own router behind net/http/cgi. The program is
// started for each request, so all that lasts is in the folder /data (see Store).
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/cgi"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Guestbook</title>
<h1>Guestbook</h1>
<ul>
{{range .}}<li><b>{{.Name}}</b> {{.Text}}</li>
{{end}}</ul>
<p><a href="/">Sign it</a></p>
</html>
`))

var fileName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$`)

func main() {
	log.SetFlags(0) // The host's log has the time.
	guestbook := guestbook{Store{"/data"}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /entries", guestbook.page)
	mux.HandleFunc("POST /entries", guestbook.sign)
	mux.HandleFunc("GET /api/entries", guestbook.list)
	mux.HandleFunc("POST /api/entries", guestbook.create)
	mux.HandleFunc("GET /api/entries/{id}", guestbook.show)
	mux.HandleFunc("GET /visits", guestbook.visits)
	mux.HandleFunc("POST /visits", guestbook.visit)
	mux.HandleFunc("GET /files/{name}", guestbook.file)
	mux.HandleFunc("PUT /files/{name}", guestbook.putFile)
	if err := cgi.Serve(mux); err != nil {
		log.Fatal(err)
	}
}

type guestbook struct{ store Store }

func (g guestbook) page(w http.ResponseWriter, r *http.Request) {
	entries, err := g.store.Entries()
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := page.Execute(w, entries); err != nil {
		log.Print(err)
	}
}

func (g guestbook) sign(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, "expected a form: "+err.Error(), http.StatusBadRequest)
		return
	}
	entry, err := newEntry(r.PostForm.Get("name"), r.PostForm.Get("text"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if _, err := g.store.Add(entry); err != nil {
		fail(w, err)
		return
	}
	http.Redirect(w, r, "/entries", http.StatusSeeOther)
}

func (g guestbook) list(w http.ResponseWriter, r *http.Request) {
	entries, err := g.store.Entries()
	if err != nil {
		fail(w, err)
		return
	}
	answer(w, http.StatusOK, entries)
}

func (g guestbook) create(w http.ResponseWriter, r *http.Request) {
	entry, err := readEntry(r.Body)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	entry, err = g.store.Add(entry)
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Location", fmt.Sprintf("/api/entries/%d", entry.ID))
	answer(w, http.StatusCreated, entry)
}

func (g guestbook) show(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 31)
	if err != nil {
		refuse(w, http.StatusNotFound, "no such entry")
		return
	}
	entry, err := g.store.Entry(int(id))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		refuse(w, http.StatusNotFound, "no such entry")
	case err != nil:
		fail(w, err)
	default:
		answer(w, http.StatusOK, entry)
	}
}

func (g guestbook) visits(w http.ResponseWriter, r *http.Request) {
	count, err := g.store.Visits()
	if err != nil {
		fail(w, err)
		return
	}
	fmt.Fprint(w, count)
}

func (g guestbook) visit(w http.ResponseWriter, r *http.Request) {
	count, err := g.store.Visit()
	if err != nil {
		fail(w, err)
		return
	}
	fmt.Fprint(w, count)
}

func (g guestbook) file(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if !fileName.MatchString(name) {
		http.NotFound(w, r)
		return
	}
	file, err := g.store.File(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		http.NotFound(w, r)
		return
	case err != nil:
		fail(w, err)
		return
	}
	defer file.Close()
	// Whatever it says it is: no browser shows it as a page of this site.
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if _, err := io.Copy(w, file); err != nil {
		log.Print(err)
	}
}

func (g guestbook) putFile(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if !fileName.MatchString(name) {
		http.Error(w, "name: expected at most 100 of A-Z a-z 0-9 . _ -, no dot in front", http.StatusBadRequest)
		return
	}
	if err := g.store.PutFile(name, r.Body); err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// newEntry makes an entry of what was sent, or says why there can be none.
func newEntry(name, text string) (Entry, error) {
	entry := Entry{Name: trimmed(name), Text: trimmed(text)}
	if err := check("name", entry.Name, 100); err != nil {
		return Entry{}, err
	}
	return entry, check("text", entry.Text, 1000)
}

func readEntry(body io.Reader) (Entry, error) {
	var sent *struct{ Name, Text string }
	content, err := io.ReadAll(body)
	if err == nil {
		err = json.Unmarshal(content, &sent)
	}
	if err != nil || sent == nil {
		return Entry{}, errors.New("expected a JSON object with the texts name and text")
	}
	return newEntry(sent.Name, sent.Text)
}

func trimmed(text string) string {
	return strings.TrimSpace(strings.ToValidUTF8(text, "\uFFFD"))
}

func check(field, text string, most int) error {
	if text == "" {
		return fmt.Errorf("%s: expected a text", field)
	}
	if utf8.RuneCountInString(text) > most {
		return fmt.Errorf("%s: expected at most %d characters", field, most)
	}
	return nil
}

func answer(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(value); err != nil {
		log.Print(err)
	}
}

func refuse(w http.ResponseWriter, status int, reason string) {
	answer(w, status, map[string]string{"error": reason})
}

func fail(w http.ResponseWriter, err error) {
	log.Print(err)
	http.Error(w, "internal server error", http.StatusInternalServerError)
}
