// SPDX-License-Identifier: MIT OR Apache-2.0

//! The list of blocks that UNMAP brings.

use busway_block::Disk;
use busway_memory::GuestSlices;
use busway_wire::scsi::{AdditionalSense, Sense, UnmapDescriptor, UnmapHeader};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::target::{Extent, extent};

/// Most descriptors of one list, as guests are told. Each is a system call of its own, and a list
/// is kept until the last is done: a guest could fill memory with longer ones.
pub(crate) const MAX_DESCRIPTORS: usize = 256;

/// Copies the list of `length` bytes out of `data`, checks all of it, and leaves the extents in
/// `extents`, the last one first.
pub(crate) fn read_list(
    disk: &Disk,
    length: usize,
    data: &GuestSlices,
    extents: &mut Vec<Extent>,
) -> Result<(), Sense> {
    extents.clear();
    if length == 0 {
        return Ok(());
    }
    let too_short = Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);
    let mut header = UnmapHeader::new_zeroed();
    let room = length.checked_sub(size_of::<UnmapHeader>()).ok_or(too_short)?;
    if data.len() < length {
        return Err(too_short);
    }
    data.read_at(0, header.as_mut_bytes());
    // The list ends where the first of the three lengths says so; its end may be cut.
    let announced = usize::from(header.data_length.get()).saturating_sub(6);
    let bytes = usize::from(header.descriptors_length.get()).min(announced).min(room);
    let count = bytes / size_of::<UnmapDescriptor>();
    if count > MAX_DESCRIPTORS {
        return Err(Sense::illegal(AdditionalSense::INVALID_FIELD_IN_PARAMETER_LIST));
    }
    for index in (0..count).rev() {
        let mut bytes = [0; size_of::<UnmapDescriptor>()];
        data.read_at(size_of::<UnmapHeader>() + index * bytes.len(), &mut bytes);
        let descriptor = UnmapDescriptor::read_from_bytes(&bytes).map_err(|_| too_short)?;
        let extent = extent(disk, descriptor.lba.get(), descriptor.blocks.get())?;
        if extent.len != 0 {
            extents.push(extent);
        }
    }
    Ok(())
}
