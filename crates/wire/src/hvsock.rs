// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sockets between a guest and its host (hv_sock).
//!
//! Each connection is a channel of its own, whose packets are those of a [pipe](crate::pipe): the
//! bytes of a stream, or none for its end. The guest asks for one by TL_CONNECT_REQUEST and gets it
//! as an offer; the host just offers one.
//!
//! Source: Linux `net/vmw_vsock/hyperv_transport.c`.

use crate::Guid;

/// Services that have a port number: all of Linux's are `xxxxxxxx` of this.
const TEMPLATE: u128 = 0x0000_0000_facb_11e6_bd58_6400_6a79_86d3;

/// Most data bytes that Linux takes in one packet (`HVS_MTU_SIZE`).
pub const MAX_DATA: usize = 16 << 10;

/// The service, or the guest's end, of AF_VSOCK's `port`.
pub const fn service(port: u32) -> Guid {
    Guid::from_text_order(TEMPLATE | (port as u128) << 96)
}

/// The port of a service that has one.
pub fn port(service: Guid) -> Option<u32> {
    let [a, b, c, d, ..] = service.0;
    let port = u32::from_le_bytes([a, b, c, d]);
    (service == self::service(port)).then_some(port)
}

/// What an offer's own data say of a connection: a stream of bytes, and who has asked for it.
pub const fn user_defined(by_host: bool) -> [u8; 120] {
    let mut data = [0; 120];
    data[4] = by_host as u8;
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `srv_id_template` and `get_port_by_srv_id`.
    #[test]
    fn ports_are_the_first_word_of_their_service() {
        let text = "00000400-facb-11e6-bd58-64006a7986d3";
        assert_eq!(service(1024).to_string(), text);
        assert_eq!(service(0x1234_5678).0[..6], [0x78, 0x56, 0x34, 0x12, 0xcb, 0xfa]);
        for number in [0, 1, 1024, u32::MAX] {
            assert_eq!(port(service(number)), Some(number));
        }
        assert_eq!(port(crate::class::SCSI), None);
    }

    /// `user_def[0]` of a pipe's offer follows the pipe's type.
    #[test]
    fn who_asked_is_the_fifth_byte() {
        assert_eq!(user_defined(true)[..5], [0, 0, 0, 0, 1]);
        assert_eq!(user_defined(false), [0; 120]);
    }
}
