// SPDX-License-Identifier: MIT OR Apache-2.0

//! MODE SENSE.

use busway_block::Disk;
use busway_wire::scsi::{
    AdditionalSense, CachingPage, ControlPage, DeviceSpecific, ModeHeader6, ModeHeader10,
    ModeSense, PageCode, Sense,
};
use zerocopy::IntoBytes;

/// [`ModeSense::control`]: which of the values could be changed, as a mask.
const CHANGEABLE: u8 = 1;
/// [`ModeSense::control`]: values that survive a reset.
const SAVED: u8 = 3;
/// [`ModeSense::subpage`]: all of them.
const ALL_SUBPAGES: u8 = 0xff;

/// What MODE SENSE returns for `disk`: a header and pages, no block descriptors.
pub(crate) fn of_disk(disk: &Disk, mode: &ModeSense) -> Result<Vec<u8>, Sense> {
    if mode.control == SAVED {
        return Err(Sense::illegal(AdditionalSense::SAVING_NOT_SUPPORTED));
    }
    let mut pages = Vec::new();
    let wanted = |page| mode.page == page || mode.page == PageCode::ALL;
    let is_subpage = mode.subpage == 0 || mode.subpage == ALL_SUBPAGES;
    if is_subpage && wanted(PageCode::CACHING) {
        pages.extend_from_slice(caching(disk, mode.control).as_bytes());
    }
    if is_subpage && wanted(PageCode::CONTROL) {
        pages.extend_from_slice(control(mode.control).as_bytes());
    }
    if pages.is_empty() {
        return Err(Sense::illegal(AdditionalSense::INVALID_FIELD_IN_CDB));
    }
    let mut bytes = header(disk, mode.long, pages.len());
    bytes.append(&mut pages);
    Ok(bytes)
}

/// What has been written is in the host's page cache until the guest asks for more.
fn caching(disk: &Disk, control: u8) -> CachingPage {
    let has_cache = !disk.is_read_only() && control != CHANGEABLE;
    CachingPage::new(if has_cache { CachingPage::WRITE_CACHE } else { 0 })
}

const fn control(control: u8) -> ControlPage {
    let page = ControlPage::unordered();
    if control == CHANGEABLE { ControlPage { queueing: 0, ..page } } else { page }
}

fn header(disk: &Disk, long: bool, pages_len: usize) -> Vec<u8> {
    let mut device = DeviceSpecific::FORCE_UNIT_ACCESS;
    device.set(DeviceSpecific::WRITE_PROTECTED, disk.is_read_only());
    let device_specific = device.bits();
    if long {
        let length = (size_of::<ModeHeader10>() - 2 + pages_len) as u16;
        let header = ModeHeader10 {
            length: length.into(),
            medium: 0,
            device_specific,
            long_lba: 0,
            reserved: 0,
            block_descriptors_length: 0.into(),
        };
        header.as_bytes().to_vec()
    } else {
        let length = (size_of::<ModeHeader6>() - 1 + pages_len) as u8;
        let header =
            ModeHeader6 { length, medium: 0, device_specific, block_descriptors_length: 0 };
        header.as_bytes().to_vec()
    }
}
