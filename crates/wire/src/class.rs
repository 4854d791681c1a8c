// SPDX-License-Identifier: MIT OR Apache-2.0

//! The interface types (device classes) that guests have drivers for.
//!
//! Source: Linux `include/linux/hyperv.h` (`HV_*_GUID`) and `drivers/hv/channel_mgmt.c`
//! (`vmbus_devs`).

use crate::Guid;

macro_rules! classes {
    ($( $(#[$meta:meta])* $name:ident = $value:literal, $text:literal; )*) => {
        $( $(#[$meta])* pub const $name: Guid = Guid::from_text_order($value); )*

        /// All of them, with their short names.
        pub const ALL: &[(&str, Guid)] = &[$(($text, $name)),*];

        /// The short name of an interface type, as busway's flags and traces spell it; `None` for a
        /// type that is not listed here.
        pub fn name(class: Guid) -> Option<&'static str> {
            $( if class == $name { return Some($text); } )*
            None
        }
    };
}

classes! {
    /// Synthetic SCSI controller (`hv_storvsc`).
    SCSI = 0xba6163d9_04a1_4d29_b605_72e2ffb1dc7f, "storage";
    /// Synthetic IDE disk of first-generation machines (`hv_storvsc`).
    IDE = 0x32412632_86cb_44a2_9b5c_50d1417354f5, "ide";
    /// Synthetic Fibre Channel (`hv_storvsc`).
    FIBRE_CHANNEL = 0x2f9bcc4a_0069_4af3_b76b_6fd0be528cda, "fc";
    /// Synthetic network card (`hv_netvsc`).
    NETWORK = 0xf8615163_df3e_46c5_913f_f2d2f965ed0e, "network";
    /// Guest shutdown integration component (`hv_utils`).
    SHUTDOWN = 0x0e0b6031_5213_4934_818b_38d90ced39db, "shutdown";
    /// Time synchronisation integration component (`hv_utils`).
    TIME_SYNC = 0x9527e630_d0ae_497b_adce_e80ab0175caf, "timesync";
    /// Heartbeat integration component (`hv_utils`).
    HEARTBEAT = 0x57164f39_9115_4e78_ab55_382f3bd5422d, "heartbeat";
    /// Key-value pair exchange (`hv_utils`, `hv_kvp_daemon`).
    KVP = 0xa9a0f4e7_5a45_4d96_b827_8a841e8c03e6, "kvp";
    /// Volume snapshot (`hv_utils`, `hv_vss_daemon`).
    VSS = 0x35fa2e29_ea23_4236_96ae_3a6ebacba440, "vss";
    /// Guest file copy (`hv_utils`, `hv_fcopy_daemon`).
    FILE_COPY = 0x34d14be3_dee4_41c8_9ae7_6b174977c192, "fcopy";
    /// Dynamic memory (`hv_balloon`).
    BALLOON = 0x525074dc_8985_46e2_8057_a307dc18a502, "balloon";
    /// Mouse (`hid_hyperv`).
    MOUSE = 0xcfa8b69e_5b4a_4cc0_b98b_8ba1a1f3f95a, "mouse";
    /// Keyboard (`hyperv_keyboard`).
    KEYBOARD = 0xf912ad6d_2b17_48ea_bd65_f927a61c7684, "keyboard";
    /// Synthetic video (`hyperv_fb`, `hyperv_drm`).
    VIDEO = 0xda0a7802_e377_4aac_8e77_0558eb1073f8, "video";
    /// Network direct, RDMA.
    NETWORK_DIRECT = 0x8c2eaf3d_32a7_4b09_ab99_bd1f1c86b501, "rdma";
    /// PCI pass-through (`pci_hyperv`).
    PCI_EXPRESS = 0x44c4f61d_4444_4400_9d52_802e27ede19f, "pci";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_found_by_guid() {
        assert_eq!(name(SCSI), Some("storage"));
        assert_eq!(name(Guid::ZERO), None);
    }
}
