// SPDX-License-Identifier: MIT OR Apache-2.0

//! Commands byte by byte as guests' disk drivers build them.

use super::*;

fn parse(cdb: &[u8]) -> Command {
    Command::parse(cdb).unwrap()
}

/// Linux `drivers/scsi/sd.c`, `sd_setup_rw10_cmnd`: flags in byte 1, address in 2 to 5, blocks in
/// 7 and 8; FUA is 0x08.
#[test]
fn read_and_write_10() {
    let mut cdb = [0; 10];
    cdb[0] = 0x28;
    cdb[2..6].copy_from_slice(&0x0123_4567_u32.to_be_bytes());
    cdb[7..9].copy_from_slice(&256_u16.to_be_bytes());
    let transfer = Transfer {
        opcode: Opcode::READ_10,
        lba: 0x0123_4567,
        blocks: 256,
        force_unit_access: false,
        protect: 0,
    };
    assert_eq!(parse(&cdb), Command::Read(transfer));
    assert_eq!(parse(&cdb).to_string(), "READ_10 lba=19088743 blocks=256");

    cdb[0] = 0x2a;
    cdb[1] = 0x08;
    let transfer = Transfer { opcode: Opcode::WRITE_10, force_unit_access: true, ..transfer };
    assert_eq!(parse(&cdb), Command::Write(transfer));
    assert_eq!(parse(&cdb).to_string(), "WRITE_10 lba=19088743 blocks=256 fua");
}

/// `sd_setup_rw6_cmnd`: five bits of the address in byte 1, and 256 blocks are written as 0.
#[test]
fn read_6_has_21_bits_of_address_and_256_blocks_for_0() {
    let Command::Read(transfer) = parse(&[0x08, 0xff, 0x02, 0x03, 0x00, 0x00]) else {
        panic!("not a read");
    };
    assert_eq!((transfer.lba, transfer.blocks), (0x1f_0203, 256));
    let Command::Write(transfer) = parse(&[0x0a, 0x01, 0x02, 0x03, 0x04, 0x00]) else {
        panic!("not a write");
    };
    assert_eq!((transfer.lba, transfer.blocks), (0x1_0203, 4));
}

/// `sd_setup_rw16_cmnd`: address in bytes 2 to 9, blocks in 10 to 13.
#[test]
fn read_and_write_16() {
    let mut cdb = [0; 16];
    cdb[0] = 0x8a;
    cdb[1] = 0x28;
    cdb[2..10].copy_from_slice(&0x0123_4567_89ab_cdef_u64.to_be_bytes());
    cdb[10..14].copy_from_slice(&0x0001_0000_u32.to_be_bytes());
    let Command::Write(transfer) = parse(&cdb) else { panic!("not a write") };
    assert_eq!((transfer.lba, transfer.blocks), (0x0123_4567_89ab_cdef, 0x0001_0000));
    assert!(transfer.force_unit_access);
    assert_eq!(transfer.protect, 1);
    cdb[0] = 0x88;
    assert!(matches!(parse(&cdb), Command::Read(_)));
}

/// SBC-3, READ (12): blocks in bytes 6 to 9.
#[test]
fn read_and_write_12() {
    let cdb = [0xa8, 0, 0, 0, 1, 0, 0, 0, 0, 8, 0, 0];
    let Command::Read(transfer) = parse(&cdb) else { panic!("not a read") };
    assert_eq!((transfer.lba, transfer.blocks), (256, 8));
    let cdb = [0xaa, 8, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0];
    let Command::Write(transfer) = parse(&cdb) else { panic!("not a write") };
    assert_eq!((transfer.lba, transfer.blocks, transfer.force_unit_access), (256, 65536, true));
}

/// `drivers/scsi/scsi_scan.c`, `scsi_probe_lun` (36 bytes first), and `scsi_vpd_inquiry`.
#[test]
fn inquiry() {
    let standard = parse(&[0x12, 0, 0, 0, 36, 0]);
    assert_eq!(standard, Command::Inquiry { vital: false, page: VpdPage(0), allocation: 36 });
    assert_eq!(standard.to_string(), "INQUIRY room=36");
    let page = parse(&[0x12, 1, 0x83, 1, 0, 0]);
    assert_eq!(
        page,
        Command::Inquiry { vital: true, page: VpdPage::DEVICE_IDENTIFICATION, allocation: 256 }
    );
    assert_eq!(page.to_string(), "INQUIRY page=DEVICE_IDENTIFICATION room=256");
}

/// `scsi_mode_sense` (`drivers/scsi/scsi_lib.c`) builds both lengths.
#[test]
fn mode_sense() {
    let short = parse(&[0x1a, 0x08, 0x3f, 0x00, 0xc0, 0]);
    let expected = ModeSense {
        long: false,
        no_block_descriptors: true,
        control: 0,
        page: PageCode::ALL,
        subpage: 0,
        allocation: 192,
    };
    assert_eq!(short, Command::ModeSense(expected));
    let long = parse(&[0x5a, 0, 0x48, 0x02, 0, 0, 0, 1, 4, 0]);
    let expected = ModeSense {
        long: true,
        no_block_descriptors: false,
        control: 1,
        page: PageCode::CACHING,
        subpage: 2,
        allocation: 260,
    };
    assert_eq!(long, Command::ModeSense(expected));
    assert_eq!(long.to_string(), "MODE_SENSE_10 page=CACHING/0x2 control=1 room=260");
}

/// `read_capacity_16` and `read_capacity_10` of `sd.c`.
#[test]
fn read_capacity() {
    assert_eq!(parse(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Command::ReadCapacity10);
    let mut cdb = [0; 16];
    cdb[0] = 0x9e;
    cdb[1] = 0x10;
    cdb[13] = 32;
    assert_eq!(parse(&cdb), Command::ReadCapacity16 { allocation: 32 });
    cdb[1] = 0x12;
    let status = parse(&cdb);
    assert_eq!(status, Command::OtherAction(Opcode::SERVICE_ACTION_IN_16, 0x12));
    assert_eq!(status.to_string(), "SERVICE_ACTION_IN_16 action=0x12");
}

/// `sd_setup_unmap_cmnd`: ten bytes of command, 24 of list.
#[test]
fn unmap() {
    let unmap = parse(&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]);
    assert_eq!(unmap, Command::Unmap { anchor: false, length: 24 });
}

/// `sd_setup_write_same16_cmnd` and `sd_setup_write_same10_cmnd`: UNMAP is 0x08 in byte 1.
#[test]
fn write_same() {
    let mut cdb = [0; 16];
    cdb[0] = 0x93;
    cdb[1] = 0x08;
    cdb[9] = 8;
    cdb[13] = 16;
    let expected = WriteSame {
        opcode: Opcode::WRITE_SAME_16,
        lba: 8,
        blocks: 16,
        unmap: true,
        anchor: false,
        no_data: false,
        protect: 0,
    };
    assert_eq!(parse(&cdb), Command::WriteSame(expected));
    assert_eq!(parse(&cdb).to_string(), "WRITE_SAME_16 lba=8 blocks=16 unmap");
    cdb[1] = 0x01;
    assert!(matches!(parse(&cdb), Command::WriteSame(WriteSame { no_data: true, .. })));
    // Bit 0 of the shorter form is obsolete, and not NDOB.
    let short = parse(&[0x41, 0x09, 0, 0, 0, 8, 0, 0, 16, 0]);
    let expected = WriteSame { opcode: Opcode::WRITE_SAME_10, ..expected };
    assert_eq!(short, Command::WriteSame(expected));
}

/// `sd_sync_cache` sends zeroes but for the opcode; `scsi_report_lun_scan` 12 bytes with the room
/// in 6 to 9.
#[test]
fn the_rest_of_what_a_disk_driver_sends() {
    assert_eq!(
        parse(&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        Command::SynchronizeCache { immediate: false, lba: 0, blocks: 0 }
    );
    assert_eq!(
        parse(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0]),
        Command::ReportLuns { select: 0, allocation: 4096 }
    );
    assert_eq!(
        parse(&[0x03, 0, 0, 0, 96, 0]),
        Command::RequestSense { descriptor: false, allocation: 96 }
    );
    assert_eq!(parse(&[0; 6]), Command::TestUnitReady);
    assert_eq!(
        parse(&[0x1b, 1, 0, 0, 0x02, 0]),
        Command::StartStop { start: false, load_eject: true, power_condition: 0 }
    );
    assert_eq!(parse(&[0x1e, 0, 0, 0, 1, 0]), Command::PreventRemoval { prevent: true });
    assert_eq!(parse(&[0x1e, 0, 0, 0, 2, 0]), Command::PreventRemoval { prevent: false });
    let verify = parse(&[0x2f, 0x02, 0, 0, 0, 1, 0, 0, 2, 0]);
    assert!(matches!(
        verify,
        Command::Verify { transfer: Transfer { lba: 1, blocks: 2, .. }, byte_check: 1 }
    ));
}

#[test]
fn what_is_unknown_keeps_its_opcode() {
    assert_eq!(parse(&[0x4d; 10]), Command::Other(Opcode::LOG_SENSE));
    assert_eq!(parse(&[0xc1]), Command::Other(Opcode(0xc1)));
    assert_eq!(parse(&[0x7f; 32]), Command::Other(Opcode(0x7f)));
    assert_eq!(parse(&[0xa3; 12]), Command::Other(Opcode::MAINTENANCE_IN));
}

#[test]
fn a_cut_command_is_an_error_with_the_numbers() {
    assert_eq!(Command::parse(&[]), Err(CdbError::Empty));
    for (opcode, need) in [(0x12, 6), (0x28, 10), (0x42, 10), (0x88, 16), (0xa0, 12)] {
        let mut cdb = vec![0; need - 1];
        cdb[0] = opcode;
        let error = CdbError::Short { opcode: Opcode(opcode), need, have: need - 1 };
        assert_eq!(Command::parse(&cdb), Err(error));
        cdb.push(0);
        assert!(Command::parse(&cdb).is_ok());
    }
}

/// As Linux's `drivers/cdrom/cdrom.c` and `drivers/scsi/sr.c` lay them out.
#[test]
fn commands_of_drives_are_parsed() {
    let toc = [0x43, 2, 0, 0, 0, 0, 0, 0, 12, 0];
    assert_eq!(parse(&toc), Command::ReadToc { msf: true, format: 0, allocation: 12 });
    let sessions = [0x43, 0, 1, 0, 0, 0, 0, 1, 0, 0x40];
    assert_eq!(parse(&sessions), Command::ReadToc { msf: false, format: 1, allocation: 256 });
    let configuration = [0x46, 2, 0, 0x1f, 0, 0, 0, 0, 16, 0];
    assert_eq!(parse(&configuration), Command::GetConfiguration { allocation: 16 });
    let event = [0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0];
    let expected = Command::GetEventStatus { polled: true, classes: 0x10, allocation: 8 };
    assert_eq!(parse(&event), expected);
}
