// SPDX-License-Identifier: MIT OR Apache-2.0

//! The least that a program does with KVM: a machine, a page of memory, a processor that halts. The
//! limit beside vmm/start.
//!
//! When its guest has halted it writes a byte, and stays until its input ends.

use std::io::{self, Read, Write};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit, VmFd};

#[repr(C, align(4096))]
struct Page([u8; 4096]);

const HLT: u8 = 0xf4;

fn main() -> io::Result<()> {
    let vm = Kvm::new()?.create_vm()?;
    add_memory(&vm)?;
    let mut vcpu = vm.create_vcpu(0)?;
    // In real mode, at the first byte of the page.
    let mut segments = vcpu.get_sregs()?;
    segments.cs.base = 0;
    segments.cs.selector = 0;
    vcpu.set_sregs(&segments)?;
    let mut registers = vcpu.get_regs()?;
    registers.rip = 0;
    vcpu.set_regs(&registers)?;
    let exit = vcpu.run()?;
    if !matches!(exit, VcpuExit::Hlt) {
        return Err(io::Error::other(format!("the guest did not halt: {exit:?}")));
    }
    io::stdout().write_all(b"!")?;
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

#[expect(unsafe_code, reason = "KVM is told of memory by its address")]
fn add_memory(vm: &VmFd) -> io::Result<()> {
    let mut page = Box::new(Page([0; 4096]));
    page.0[0] = HLT;
    let region = kvm_userspace_memory_region {
        memory_size: size_of::<Page>() as u64,
        userspace_addr: Box::leak(page).0.as_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: the page is leaked, so the guest has it for as long as the process lives.
    Ok(unsafe { vm.set_user_memory_region(region) }?)
}
