// SPDX-License-Identifier: MIT OR Apache-2.0

//! INQUIRY: what a disk says about itself, and what is said of a unit that is not there.

use busway_block::{Disk, Identity};
use busway_wire::scsi::{
    AdditionalSense, BlockCharacteristics, BlockLimits, Inquiry, Peripheral, Provisioning, Sense,
    VendorName, VpdHeader, VpdPage, provisioning, virtual_disk_name, world_wide_name,
};
use zerocopy::IntoBytes;

use crate::MAX_TRANSFER_BYTES;
use crate::target::MAX_WRITE_SAME_BYTES;
use crate::unmap::MAX_DESCRIPTORS;

/// The pages of every disk, in order.
const PAGES: [VpdPage; 6] = [
    VpdPage::SUPPORTED_PAGES,
    VpdPage::UNIT_SERIAL_NUMBER,
    VpdPage::DEVICE_IDENTIFICATION,
    VpdPage::BLOCK_LIMITS,
    VpdPage::BLOCK_CHARACTERISTICS,
    VpdPage::LOGICAL_BLOCK_PROVISIONING,
];

/// What INQUIRY returns for `disk`.
pub(crate) fn of_disk(disk: &Disk, vital: bool, page: VpdPage) -> Result<Vec<u8>, Sense> {
    if !vital {
        // Without the bit there is but one page, and it has number 0.
        return match page {
            VpdPage(0) => Ok(Inquiry::VIRTUAL_DISK.as_bytes().to_vec()),
            _ => Err(Sense::illegal(AdditionalSense::INVALID_FIELD_IN_CDB)),
        };
    }
    let body = match page {
        VpdPage::SUPPORTED_PAGES => PAGES.as_bytes().to_vec(),
        VpdPage::UNIT_SERIAL_NUMBER => disk.identity().serial.as_bytes().to_vec(),
        VpdPage::DEVICE_IDENTIFICATION => names(disk.identity()),
        VpdPage::BLOCK_LIMITS => limits(disk).as_bytes().to_vec(),
        VpdPage::BLOCK_CHARACTERISTICS => CHARACTERISTICS.as_bytes().to_vec(),
        VpdPage::LOGICAL_BLOCK_PROVISIONING => provisioning(disk).as_bytes().to_vec(),
        _ => return Err(Sense::illegal(AdditionalSense::INVALID_FIELD_IN_CDB)),
    };
    Ok(with_header(Peripheral::DISK, page, &body))
}

fn names(identity: &Identity) -> Vec<u8> {
    let usual = virtual_disk_name(identity.unique);
    let name = identity.wwn.as_ref().map_or(&usual[..], |given| given.bytes());
    let vendor = VendorName::virtual_disk(identity.unique);
    [vendor.as_bytes(), &world_wide_name(name.len() as u8), name].concat()
}

/// What INQUIRY returns for the drive that has these names, whatever disc is in it.
pub(crate) fn of_drive(identity: &Identity, vital: bool, page: VpdPage) -> Result<Vec<u8>, Sense> {
    let invalid = Err(Sense::illegal(AdditionalSense::INVALID_FIELD_IN_CDB));
    if !vital {
        return match page {
            VpdPage(0) => Ok(Inquiry::VIRTUAL_DVD.as_bytes().to_vec()),
            _ => invalid,
        };
    }
    let pages = PAGES.get(..3).unwrap_or_default();
    let body = match page {
        VpdPage::SUPPORTED_PAGES => pages.as_bytes().to_vec(),
        VpdPage::UNIT_SERIAL_NUMBER => identity.serial.as_bytes().to_vec(),
        VpdPage::DEVICE_IDENTIFICATION => names(identity),
        _ => return invalid,
    };
    Ok(with_header(Peripheral::DISC_DRIVE, page, &body))
}

/// What INQUIRY returns where no unit is: data in every case, that says so in its first byte.
///
/// Linux's storvsc makes a success out of any answer to INQUIRY, and would take the zeroes that an
/// error leaves in its buffer for a disk.
pub(crate) fn of_nothing(vital: bool, page: VpdPage) -> Vec<u8> {
    if vital {
        return with_header(Peripheral::ABSENT, page, &[]);
    }
    let inquiry = Inquiry { peripheral: Peripheral::ABSENT, ..Inquiry::VIRTUAL_DISK };
    inquiry.as_bytes().to_vec()
}

fn with_header(peripheral: Peripheral, page: VpdPage, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX).into();
    let mut bytes = VpdHeader { peripheral, page, length }.as_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

fn limits(disk: &Disk) -> BlockLimits {
    let block = disk.logical_block();
    let physical = disk.physical_block() / block;
    let (max_unmap_blocks, max_unmap_descriptors) =
        if disk.can_discard() { (u32::MAX, MAX_DESCRIPTORS as u32) } else { (0, 0) };
    BlockLimits {
        flags: BlockLimits::WRITE_SAME_NON_ZERO,
        max_compare_and_write: 0,
        optimal_granularity: u16::try_from(physical).unwrap_or(u16::MAX).into(),
        max_transfer: (MAX_TRANSFER_BYTES / block).into(),
        optimal_transfer: (MAX_TRANSFER_BYTES / block).into(),
        max_prefetch: 0.into(),
        max_unmap_blocks: max_unmap_blocks.into(),
        max_unmap_descriptors: max_unmap_descriptors.into(),
        unmap_granularity: physical.into(),
        unmap_alignment: BlockLimits::UNMAP_ALIGNED.into(),
        max_write_same: (MAX_WRITE_SAME_BYTES / u64::from(block)).into(),
        reserved: [0; 20],
    }
}

const CHARACTERISTICS: BlockCharacteristics = BlockCharacteristics {
    rotation: zerocopy::byteorder::big_endian::U16::from_bytes(
        BlockCharacteristics::NON_ROTATING.to_be_bytes(),
    ),
    product_type: 0,
    form_factor: 0,
    flags: 0,
    reserved: [0; 55],
};

fn provisioning(disk: &Disk) -> Provisioning {
    let (flags, kind) = if disk.can_discard() {
        let flags = provisioning::UNMAP
            | provisioning::WRITE_SAME_16
            | provisioning::WRITE_SAME_10
            | provisioning::READS_ZEROES;
        (flags, Provisioning::THIN)
    } else {
        (0, 0)
    };
    Provisioning { threshold_exponent: 0, flags, kind, reserved: 0 }
}
