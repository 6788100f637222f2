// Validates the documents of an OCI image layout by the image-spec's own JSON
// schemas: every one that index.json leads to.
//
//	oci-schema LAYOUT
//
// Prints each document's media type and digest.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/image-spec/schema"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// What of a document leads to others.
type document struct {
	Manifests []v1.Descriptor `json:"manifests"`
	Config    *v1.Descriptor  `json:"config"`
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: oci-schema LAYOUT")
		os.Exit(2)
	}
	if err := validateLayout(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func validateLayout(layout string) error {
	if _, err := validate(filepath.Join(layout, v1.ImageLayoutFile), v1.MediaTypeLayoutHeader); err != nil {
		return err
	}
	index, err := validate(filepath.Join(layout, v1.ImageIndexFile), v1.MediaTypeImageIndex)
	if err != nil {
		return err
	}
	return follow(layout, index)
}

// Layers are described by their manifests, whose schema covers that.
func follow(layout string, from document) error {
	next := from.Manifests
	if from.Config != nil {
		next = append(next, *from.Config)
	}
	for _, descriptor := range next {
		path := filepath.Join(layout, v1.ImageBlobsDir, descriptor.Digest.Algorithm().String(), descriptor.Digest.Encoded())
		found, err := validate(path, descriptor.MediaType)
		if err != nil {
			return err
		}
		fmt.Println(descriptor.MediaType, descriptor.Digest)
		// A configuration's member `config` is no descriptor.
		if descriptor.MediaType == v1.MediaTypeImageConfig {
			continue
		}
		if err := follow(layout, found); err != nil {
			return err
		}
	}
	return nil
}

func validate(path, mediaType string) (document, error) {
	var found document
	content, err := os.ReadFile(path)
	if err != nil {
		return found, err
	}
	if err := schema.Validator(mediaType).Validate(bytes.NewReader(content)); err != nil {
		return found, fmt.Errorf("%s is no valid %s: %w", path, mediaType, err)
	}
	return found, json.Unmarshal(content, &found)
}
