//! A program that is started for each request, and speaks CGI/1.1 (RFC 3875).

fn main() {
    let query = std::env::var("QUERY_STRING").unwrap_or_default();
    let name = query.split('&').find_map(|pair| pair.strip_prefix("name=")).unwrap_or("world");
    print!("content-type: text/plain\r\n\r\nhello {name}\n");
}
