//! As the kits since release 1.4 make it: it exports their allocator, by which alone
//! a program without settings beside it is known to speak the protocol, and sends a
//! request through the function that their host gave them (wit/core/http.wit).
mod json;

use std::alloc::{Layout, alloc, dealloc, realloc};
use std::collections::BTreeMap;

#[link(wasm_import_module = "http")]
unsafe extern "C" {
    #[link_name = "send-http-request"]
    fn send_http_request(
        has_body: i32,
        body: *const u8,
        body_length: usize,
        headers: *const [usize; 4],
        headers_length: usize,
        method: i32,
        params: *const u8,
        params_length: usize,
        uri: *const u8,
        uri_length: usize,
        result: *mut [u32; 7],
    );
}

/// # Safety
/// As of `realloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn canonical_abi_realloc(old: *mut u8, old_length: usize, align: usize, length: usize) -> *mut u8 {
    // SAFETY: the host gives what it got, with the layout that it asked for.
    unsafe {
        match (old_length, length) {
            (_, 0) => std::ptr::without_provenance_mut(align),
            (0, _) => alloc(Layout::from_size_align_unchecked(length, align)),
            _ => realloc(old, Layout::from_size_align_unchecked(old_length, align), length),
        }
    }
}

/// # Safety
/// As of `dealloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn canonical_abi_free(memory: *mut u8, length: usize, align: usize) {
    if length > 0 {
        // SAFETY: as above.
        unsafe { dealloc(memory, Layout::from_size_align_unchecked(length, align)) }
    }
}

const GET: i32 = 0;
const ERRORS: [&str; 7] = [
    "invalid request",
    "invalid request body",
    "invalid response body",
    "not allowed",
    "internal error",
    "timeout",
    "redirect loop",
];

/// Status, number of headers and body; or the kind of error.
fn get(uri: &str, [name, value]: [&str; 2]) -> Result<(u32, u32, String), &'static str> {
    let text = |address: u32, length: u32| {
        let start = std::ptr::with_exposed_provenance::<u8>(address as usize);
        // SAFETY: the host allocated it by our function, and wrote it.
        let bytes = if length == 0 { &[] } else { unsafe { std::slice::from_raw_parts(start, length as usize) } };
        String::from_utf8_lossy(bytes).into_owned()
    };
    let headers = [[name.as_ptr().expose_provenance(), name.len(), value.as_ptr().expose_provenance(), value.len()]];
    let mut result = [0; 7];
    // SAFETY: all that is passed lives until it returns.
    unsafe {
        send_http_request(0, std::ptr::null(), 0, headers.as_ptr(), 1, GET, std::ptr::null(), 0, uri.as_ptr(), uri.len(), &mut result);
    }
    // `result<response, error>` in the canonical ABI: of each word the lowest bytes count.
    let [failed, error, address, length, _, headers, status] = result;
    if failed & 0xff == 1 {
        return Err(ERRORS[(error & 0xff) as usize]);
    }
    Ok((status & 0xffff, headers, text(address, length)))
}

fn main() {
    let document = json::Document::read();
    let answer = match std::env::var("UPSTREAM") {
        Ok(upstream) => match get(&format!("{upstream}/headers"), ["x-kit", "rust"]) {
            Ok((status, headers, body)) => format!("{status}, headers: {}, {body}", headers > 0),
            Err(kind) => format!("error: {kind}"),
        },
        Err(_) => format!("{} {}", document.get("method"), document.get("body")),
    };
    json::answer(&answer, &BTreeMap::new());
}
