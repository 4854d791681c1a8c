// SPDX-License-Identifier: MIT OR Apache-2.0

//! Writes initramfs archives: cpio "newc", as `Documentation/driver-api/early-userspace/buffer-format.rst`
//! of Linux gives it. Archives may be concatenated, so a test adds its script to a base archive by
//! appending one of its own.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// The kernel aligns nothing but expects archives that follow to start on 4 bytes; 512 is cpio's own block.
const BLOCK: u64 = 512;

/// An archive being written to `W`. Directories above an entry are made as needed.
#[derive(Debug)]
pub struct Archive<W: Write> {
    out: W,
    written: u64,
    inode: u32,
    directories: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// Starts an archive; `out` should be buffered.
    pub fn new(out: W) -> Self {
        Self { out, written: 0, inode: 0, directories: BTreeSet::new() }
    }

    /// A directory with mode 0755, and those above it. Saying it twice is no error.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        let mut prefix = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if !prefix.is_empty() {
                prefix.push('/');
            }
            prefix.push_str(part);
            if self.directories.insert(prefix.clone()) {
                self.header(&prefix, DIRECTORY | 0o755, 0)?;
            }
        }
        Ok(())
    }

    /// A regular file with the permission bits `mode` and these contents.
    pub fn file(&mut self, path: &str, mode: u32, contents: &[u8]) -> io::Result<()> {
        self.stream(path, mode, contents.len() as u64, contents)
    }

    /// A file of the host, with its own permission bits; symbolic links are followed.
    pub fn copy(&mut self, path: &str, source: &Path) -> io::Result<()> {
        let file = File::open(source)?;
        let metadata = file.metadata()?;
        let mode = metadata.permissions().mode() & 0o7777;
        self.stream(path, mode, metadata.len(), file)
    }

    /// A file or a whole directory of the host; symbolic links inside a directory stay links.
    pub fn copy_tree(&mut self, path: &str, source: &Path) -> io::Result<()> {
        if !source.is_dir() {
            return self.copy(path, source);
        }
        self.directory(path)?;
        let mut entries = fs::read_dir(source)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let name = name.to_str().ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is not UTF-8"))
            })?;
            let below = format!("{path}/{name}");
            if entry.file_type()?.is_symlink() {
                self.symlink_bytes(&below, fs::read_link(entry.path())?.as_os_str().as_bytes())?;
            } else {
                self.copy_tree(&below, &entry.path())?;
            }
        }
        Ok(())
    }

    /// A symbolic link at `path` that says `target`.
    pub fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.symlink_bytes(path, target.as_bytes())
    }

    /// Writes the trailer and returns the writer, flushed.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.header("TRAILER!!!", 0, 0)?;
        self.pad_to(BLOCK)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn symlink_bytes(&mut self, path: &str, target: &[u8]) -> io::Result<()> {
        self.parent(path)?;
        self.header(path, SYMLINK | 0o777, target.len() as u64)?;
        self.put(target)?;
        self.pad_to(4)
    }

    fn stream(&mut self, path: &str, mode: u32, size: u64, source: impl Read) -> io::Result<()> {
        self.parent(path)?;
        self.header(path, REGULAR | mode, size)?;
        // A file that grows meanwhile is cut; one that shrinks would shift all that follows.
        let copied = io::copy(&mut source.take(size), &mut self.out)?;
        if copied != size {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{path}: {copied} of {size} bytes could be read"),
            ));
        }
        self.written += size;
        self.pad_to(4)
    }

    fn parent(&mut self, path: &str) -> io::Result<()> {
        match path.rsplit_once('/') {
            Some((parent, _)) => self.directory(parent),
            None => Ok(()),
        }
    }

    fn header(&mut self, path: &str, mode: u32, size: u64) -> io::Result<()> {
        let size = u32::try_from(size).map_err(|_| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{path}: {size} bytes do not fit a newc archive, which ends at 4 GiB"),
            )
        })?;
        self.inode += 1;
        let name = path.trim_start_matches('/');
        // magic, inode, mode, uid, gid, links, mtime, size, device and rdevice as major and minor,
        // length of the name with its NUL, checksum (unused by 070701)
        let inode = self.inode;
        let length = name.len() + 1;
        let header = format!(
            "070701{inode:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}{0:08x}{0:08x}{0:08x}{0:08x}{length:08x}{0:08x}",
            0, 1
        );
        self.put(header.as_bytes())?;
        self.put(name.as_bytes())?;
        self.put(&[0])?;
        self.pad_to(4)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn pad_to(&mut self, alignment: u64) -> io::Result<()> {
        let missing = self.written.next_multiple_of(alignment) - self.written;
        io::copy(&mut io::repeat(0).take(missing), &mut self.out)?;
        self.written += missing;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// Unpacks with an independent reader.
    fn unpack(archive: &[u8], directory: &Path) {
        let mut child = Command::new("cpio")
            .args(["--extract", "--quiet", "--format=newc"])
            .current_dir(directory)
            .stdin(Stdio::piped())
            .spawn()
            .expect("this test needs the cpio program");
        child.stdin.take().expect("stdin is piped").write_all(archive).unwrap();
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn another_cpio_reads_what_we_write() {
        let source = tempfile::tempdir().unwrap();
        fs::create_dir(source.path().join("deep")).unwrap();
        fs::write(source.path().join("deep/odd"), [7u8; 4097]).unwrap();
        std::os::unix::fs::symlink("odd", source.path().join("deep/link")).unwrap();

        let mut archive = Archive::new(Vec::new());
        archive.file("a/b/run", 0o750, b"#!/bin/sh\n").unwrap();
        archive.file("empty", 0o600, b"").unwrap();
        archive.symlink("a/short", "b/run").unwrap();
        archive.copy_tree("tree", source.path()).unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 512, 0);

        let target = tempfile::tempdir().unwrap();
        unpack(&bytes, target.path());
        let at = |path: &str| target.path().join(path);
        assert_eq!(fs::read(at("a/b/run")).unwrap(), b"#!/bin/sh\n");
        let mode = fs::metadata(at("a/b/run")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o750);
        assert_eq!(fs::read(at("empty")).unwrap(), b"");
        assert_eq!(fs::read_link(at("a/short")).unwrap(), Path::new("b/run"));
        assert_eq!(fs::read(at("tree/deep/odd")).unwrap(), [7u8; 4097]);
        assert_eq!(fs::read_link(at("tree/deep/link")).unwrap(), Path::new("odd"));
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let mut archive = Archive::new(Vec::new());
        let error = archive.stream("x", 0o644, 10, &b"short"[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
