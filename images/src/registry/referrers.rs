//! What refers to an image: signatures, bills of materials, provenance
//! (distribution-spec, "Listing Referrers").
