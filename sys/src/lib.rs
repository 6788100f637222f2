//! What the host and the shim have the kernel do with their memory.

use std::fs;
use std::path::Path;

/// Unmaps the pages of this program's code and constants, which come back from the
/// page cache as they are used. A program that sleeps for most of its life needs a
/// little of them, but the kernel maps 16 pages for each one used: 5 MiB of the shim,
/// 11 MiB of the host. Call it when there is nothing to do.
pub fn release_program() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let program = fs::read_link("/proc/self/exe").unwrap_or_default();
    for (start, end) in pristine_mappings(&maps, &program) {
        // SAFETY: these are private mappings of a file that were never written
        // to, so that what is read from them later is what was there before.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }
}

/// Where `program` is mapped and was never written to: its code, and its
/// constants at the start of the file. Other read-only parts were written to
/// before they became that, when addresses were put in.
fn pristine_mappings(maps: &str, program: &Path) -> Vec<(usize, usize)> {
    let parse = |line: &str| {
        let mut fields = line.split_whitespace();
        let (range, access, offset) = (fields.next()?, fields.next()?, fields.next()?);
        let is_pristine = access == "r-xp" || access == "r--p" && usize::from_str_radix(offset, 16) == Ok(0);
        let is_program = fields.nth(2).is_some_and(|path| Path::new(path) == program);
        let (start, end) = range.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        (is_pristine && is_program).then_some((number(start)?, number(end)?))
    };
    maps.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_never_written_to_is_released() {
        let maps = "\
            1000-2000 r--p 00000000 fe:00 7 /bin/shim\n\
            2000-5000 r-xp 00001000 fe:00 7 /bin/shim\n\
            5000-6000 r--p 00004000 fe:00 7 /bin/shim\n\
            6000-7000 rw-p 00005000 fe:00 7 /bin/shim\n\
            8000-9000 r-xp 00000000 fe:00 8 /lib/other\n\
            a000-b000 r-xp 00000000 00:00 0 [vdso]\n";
        let found = pristine_mappings(maps, Path::new("/bin/shim"));
        assert_eq!(found, [(0x1000, 0x2000), (0x2000, 0x5000)]);
    }

    #[test]
    fn the_program_runs_on_after_its_pages_were_released() {
        release_program();
        assert_eq!(String::from("still here").len(), 10);
    }
}
