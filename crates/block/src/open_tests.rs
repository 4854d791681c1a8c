// SPDX-License-Identifier: MIT OR Apache-2.0

use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};

use tempfile::{NamedTempFile, TempDir};

use super::*;

fn image(len: u64) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(len).unwrap();
    file
}

fn open(path: &Path) -> Result<Disk, OpenError> {
    Disk::open_raw(path, &DiskOptions::default())
}

fn open_read_only(path: &Path) -> Result<Disk, OpenError> {
    Disk::open_raw(path, &DiskOptions { read_only: true, ..DiskOptions::default() })
}

#[test]
fn an_image_is_a_disk() {
    let file = image(1 << 20);
    let disk = open(file.path()).unwrap();
    assert_eq!(
        (disk.capacity(), disk.logical_block(), disk.physical_block()),
        (1 << 20, 512, 4096)
    );
    assert!(!disk.is_read_only());
    assert_eq!(disk.name(), file.path().to_str().unwrap());
    assert_eq!(file.as_file().metadata().unwrap().len(), 1 << 20);
}

#[test]
fn the_same_path_is_the_same_disk_by_whatever_way() {
    let file = image(4096);
    let link = TempDir::new().unwrap();
    let link = link.path().join("link");
    std::os::unix::fs::symlink(file.path(), &link).unwrap();
    let first = open(file.path()).unwrap().identity().clone();
    assert_eq!(&first, open(&link).unwrap().identity());
    let options = DiskOptions { serial: Some("Busway 1".into()), ..DiskOptions::default() };
    let named = Disk::open_raw(file.path(), &options).unwrap();
    assert_eq!(named.identity().serial, "Busway 1");
    assert_ne!(named.identity().unique, first.unique);
}

#[test]
fn what_is_no_disk_is_refused_by_its_name() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("disk.img");
    let error = open(&missing).unwrap_err();
    assert!(matches!(error, OpenError::Missing { .. }), "{error}");
    assert!(error.to_string().contains(missing.to_str().unwrap()));
    assert!(!missing.exists(), "nothing is created");

    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, OpenError::NotADisk { kind: "directory", .. }), "{error}");
    let error = open(Path::new("/dev/null")).unwrap_err();
    assert!(matches!(error, OpenError::NotADisk { kind: "character device", .. }), "{error}");
}

#[test]
fn odd_sizes_are_refused() {
    let error = open(image(1000).path()).unwrap_err();
    assert!(matches!(error, OpenError::NotBlocks { len: 1000, block: 512, .. }), "{error}");
    let error = open(image(0).path()).unwrap_err();
    assert!(matches!(error, OpenError::Empty { .. }), "{error}");
    let file = image(512);
    let options = DiskOptions { logical_block: 4096, ..DiskOptions::default() };
    let error = Disk::open_raw(file.path(), &options).unwrap_err();
    assert!(matches!(error, OpenError::NotBlocks { len: 512, block: 4096, .. }), "{error}");
}

#[test]
fn odd_options_are_refused() {
    let file = image(4096);
    let with = |options: DiskOptions| Disk::open_raw(file.path(), &options).unwrap_err();
    for serial in ["", "tab\there", &"1".repeat(65), "\u{e9}"] {
        let error = with(DiskOptions { serial: Some(serial.into()), ..DiskOptions::default() });
        assert!(matches!(error, OpenError::Serial { .. }), "{error}");
    }
    for (logical_block, physical_block) in [(1024, 4096), (4096, 512), (512, 1000), (512, 1 << 20)]
    {
        let options = DiskOptions { logical_block, physical_block, ..DiskOptions::default() };
        assert!(matches!(with(options), OpenError::BlockSizes { .. }));
    }
}

#[test]
fn an_image_has_one_writer_or_many_readers() {
    let file = image(4096);
    let writer = open(file.path()).unwrap();
    let error = open(file.path()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { read_only: false, .. }), "{error}");
    let error = open_read_only(file.path()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { read_only: true, .. }), "{error}");
    // Another handle to the same disk is no other user.
    let clone = writer.clone();
    drop(writer);
    assert!(open(file.path()).is_err());
    drop(clone);
    let reader = open_read_only(file.path()).unwrap();
    let other = open_read_only(file.path()).unwrap();
    assert!(open(file.path()).is_err());
    drop((reader, other));
    open(file.path()).unwrap();
}

#[test]
fn a_missing_permission_names_the_remedy() {
    let file = image(4096);
    fs::set_permissions(file.path(), PermissionsExt::from_mode(0o444)).unwrap();
    // Root may write it all the same.
    if let Err(error) = open(file.path()) {
        assert!(matches!(error, OpenError::NotPermitted { read_only: false, .. }), "{error}");
        assert!(error.to_string().contains("readonly"));
    }
    let denied = io::Error::from(io::ErrorKind::PermissionDenied);
    let error = refine(file.path(), true, denied);
    assert!(matches!(error, OpenError::NotPermitted { read_only: true, .. }));
    assert!(!error.to_string().contains("readonly"));
}

#[test]
fn opening_changes_nothing() {
    let mut file = NamedTempFile::new().unwrap();
    let content: Vec<u8> = (0..8192_u32).map(|i| (i % 255) as u8).collect();
    file.write_all(&content).unwrap();
    let disk = open(file.path()).unwrap();
    drop(disk);
    let mut after = vec![0; 9000];
    assert_eq!(file.as_file().read_at(&mut after, 0).unwrap(), content.len());
    assert_eq!(after[..content.len()], content);
}

#[test]
fn holes_can_be_punched_in_memory_files_and_not_in_read_only_disks() {
    let file = NamedTempFile::new_in("/dev/shm").unwrap();
    file.as_file().set_len(4096).unwrap();
    assert!(open(file.path()).unwrap().can_discard());
    assert!(!open_read_only(file.path()).unwrap().can_discard());
}
