// SPDX-License-Identifier: MIT OR Apache-2.0

//! A guest of our own: a program without loops but those that wait, written as it is needed by each
//! test, entered in long mode, as an ELF file that busway boots like any kernel.
//!
//! Nothing of it runs in this process. What it finds goes into a list of 64-bit words, which leaves by the serial port at the end.
//! Only plain instructions are used: some KVMs interpret a guest's kernel, and know few.
//!
//! Source: Intel SDM volume 2 (encodings); ELF-64 object file format.

mod bus;

use std::ops::Range;

pub use bus::DiskChannel;

/// Where the image is loaded, code first.
const BASE: u64 = 0x20_0000;
/// Pages of the guest's own, for whatever a test likes.
pub const PAGES: Range<u64> = 0x21_0000..0x28_0000;
/// The list of results.
const RESULTS: u64 = 0x28_0000;
const IMAGE_END: u64 = 0x29_0000;

/// How often an interrupt has come that [`Program::on_interrupt`] named.
const INTERRUPTS: u64 = 0x20_f000;
/// How often an access to an MSR was refused.
const FAULTS: u64 = 0x20_f008;
const IDT: u64 = 0x20_e000;
const GDT: u64 = 0x20_d000;
const TABLE_POINTER: u64 = 0x20_d800;
const STACK: u64 = 0x20_d000;
const HANDLERS: u64 = 0x20_c000;

/// Selectors of [`GDT`], which has what the guest starts with at the same places.
const CODE_64: u16 = 0x10;
const CODE_32: u16 = 0x28;

const SERIAL: u32 = 0x3f8;
const SLEEP_CONTROL: u32 = 0x600;
const SLEEP_NOW: u8 = 1 << 5 | 5 << 2;

/// The hypercall page, as [`Program::with_hypercalls`] enables it.
pub const HYPERCALL_PAGE: u64 = PAGES.start;
/// The message page, as [`Program::with_synic`] enables it.
pub const MESSAGES: u64 = PAGES.start + 0x1000;
/// The event page, as [`Program::with_synic`] enables it.
pub const EVENTS: u64 = PAGES.start + 0x2000;
/// The vector of SINT 2, as [`Program::with_synic`] sets it.
pub const VECTOR: u8 = 0x51;
/// HvSignalEvent in a control word.
pub const SIGNAL_EVENT: u64 = 0x5d;
/// Of a control word: the input is in registers.
pub const FAST: u64 = 1 << 16;

/// A program in the making.
#[derive(Debug)]
pub struct Program {
    image: Vec<u8>,
    code: usize,
    results: u64,
    handlers: u64,
}

impl Default for Program {
    fn default() -> Self {
        Self::new()
    }
}

impl Program {
    /// A program that does nothing yet. Accesses to MSRs that are refused are counted and left out.
    pub fn new() -> Self {
        let image = vec![0; (IMAGE_END - BASE) as usize];
        let mut program = Self { image, code: 0, results: 0, handlers: HANDLERS };
        let code_32: u64 = 0x00cf_9b00_0000_ffff;
        let code_64: u64 = 0x00af_9b00_0000_ffff;
        let data: u64 = 0x00cf_9300_0000_ffff;
        program.put_words(GDT, &[0, 0, code_64, data, 0, code_32]);
        program.mov_rsp(STACK);
        program.load_table(0b010, GDT, 48);
        program.load_table(0b011, IDT, 4096);
        program.catch_faults();
        program
    }

    /// A program that has said who it is and enabled the hypercall page.
    pub fn with_hypercalls() -> Self {
        let mut program = Self::new();
        program.write_msr(0x4000_0000, 0x8100_0006_0001_0000);
        program.write_msr(0x4000_0001, HYPERCALL_PAGE | 1);
        program
    }

    /// A program that has enabled its SynIC too, with SINT 2 as [`VECTOR`].
    pub fn with_synic() -> Self {
        let mut program = Self::with_hypercalls();
        program.write_msr(0x4000_0083, MESSAGES | 1);
        program.write_msr(0x4000_0082, EVENTS | 1);
        program.write_msr(0x4000_0092, VECTOR.into());
        program.write_msr(0x4000_0080, 1);
        program
    }

    /// Data that is there from the start; returns where.
    pub fn put(&mut self, address: u64, bytes: &[u8]) -> u64 {
        let start = (address - BASE) as usize;
        self.image[start..start + bytes.len()].copy_from_slice(bytes);
        address
    }

    /// The same, of words.
    pub fn put_words(&mut self, address: u64, words: &[u64]) -> u64 {
        let bytes: Vec<_> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.put(address, &bytes)
    }

    fn emit(&mut self, bytes: &[u8]) {
        self.put(BASE + self.code as u64, bytes);
        self.code += bytes.len();
        assert!(BASE + self.code as u64 <= HANDLERS, "the program is too long");
    }

    fn emit_with_32(&mut self, opcode: &[u8], value: u32) {
        self.emit(opcode);
        self.emit(&value.to_le_bytes());
    }

    fn emit_with_64(&mut self, opcode: &[u8], value: u64) {
        self.emit(opcode);
        self.emit(&value.to_le_bytes());
    }

    fn mov_rsp(&mut self, value: u64) {
        self.emit_with_64(&[0x48, 0xbc], value);
    }

    fn mov_rsi(&mut self, value: u64) {
        self.emit_with_64(&[0x48, 0xbe], value);
    }

    fn mov_rdi(&mut self, value: u64) {
        self.emit_with_64(&[0x48, 0xbf], value);
    }

    /// LGDT (2) or LIDT (3).
    fn load_table(&mut self, operation: u8, address: u64, len: u16) {
        let at = TABLE_POINTER + u64::from(operation) * 16;
        self.put(at, &(len - 1).to_le_bytes());
        self.put(at + 2, &address.to_le_bytes());
        self.mov_rdi(at);
        self.emit(&[0x0f, 0x01, operation << 3 | 7]);
    }

    fn set_gate(&mut self, vector: u8, handler: u64) {
        let [low, middle, high] = [handler & 0xffff, handler >> 16 & 0xffff, handler >> 32];
        let gate = [low | u64::from(CODE_64) << 16 | 0x8e00 << 32 | middle << 48, high];
        self.put_words(IDT + u64::from(vector) * 16, &gate);
    }

    fn handler(&mut self, vector: u8, code: &[u8]) {
        let address = self.put(self.handlers, code);
        self.handlers += code.len() as u64;
        self.set_gate(vector, address);
    }

    /// A #GP is counted, and the instruction of two bytes (RDMSR, WRMSR) left out.
    fn catch_faults(&mut self) {
        let mut code = vec![0x57]; // push rdi
        code.extend(mov_rdi(FAULTS));
        #[rustfmt::skip]
        code.extend([
            0xff, 0x07,                         // inc dword [rdi]
            0x5f,                               // pop rdi
            0x48, 0x83, 0x44, 0x24, 0x08, 0x02, // add qword [rsp + 8], 2
            0x48, 0x83, 0xc4, 0x08,             // add rsp, 8
            0x48, 0xcf,                         // iretq
        ]);
        self.handler(13, &code);
    }

    /// Counts interrupts of `vector`, each ended by the EOI MSR of Hyper-V.
    pub fn on_interrupt(&mut self, vector: u8) {
        let mut code = vec![0x50, 0x51, 0x52, 0x57]; // push rax, rcx, rdx, rdi
        code.extend(mov_rdi(INTERRUPTS));
        #[rustfmt::skip]
        code.extend([
            0xff, 0x07,                         // inc dword [rdi]
            0xb9, 0x70, 0x00, 0x00, 0x40,       // mov ecx, EOI
            0x31, 0xc0, 0x31, 0xd2,             // xor eax, eax; xor edx, edx
            0x0f, 0x30,                         // wrmsr
            0x5f, 0x5a, 0x59, 0x58,             // pop rdi, rdx, rcx, rax
            0x48, 0xcf,                         // iretq
        ]);
        self.handler(vector, &code);
    }

    /// Counts interrupts of `vector`, none of which is ended.
    pub fn on_interrupt_that_ends_itself(&mut self, vector: u8) {
        let mut code = vec![0x57]; // push rdi
        code.extend(mov_rdi(INTERRUPTS));
        #[rustfmt::skip]
        code.extend([
            0xff, 0x07, // inc dword [rdi]
            0x5f,       // pop rdi
            0x48, 0xcf, // iretq
        ]);
        self.handler(vector, &code);
    }

    /// Takes no interrupts until [`take_interrupts`](Self::take_interrupts).
    pub fn hold_interrupts(&mut self) {
        self.emit(&[0xfa]); // cli
    }

    /// Takes them again.
    pub fn take_interrupts(&mut self) {
        self.emit(&[0xfb]); // sti
    }

    /// Takes interrupts again and halts until one comes.
    pub fn halt(&mut self) {
        self.emit(&[0xfb, 0xf4]); // sti; hlt
    }

    /// Enables the local APIC, and interrupts.
    pub fn allow_interrupts(&mut self) {
        const SPURIOUS: u64 = 0xfee0_00f0;
        self.store(SPURIOUS, 0x1ff);
        self.emit(&[0xfb]); // sti
    }

    /// Writes a word.
    pub fn store(&mut self, address: u64, value: u32) {
        self.mov_rdi(address);
        self.emit_with_32(&[0xc7, 0x07], value);
    }

    /// Copies a word.
    pub fn copy(&mut self, from: u64, to: u64) {
        self.mov_rsi(from);
        self.emit(&[0x8b, 0x06]); // mov eax, [rsi]
        self.mov_rdi(to);
        self.emit(&[0x89, 0x07]); // mov [rdi], eax
    }

    /// Waits until the word at `address` is, in the bits of `mask`, `value`. What does not come is
    /// ended by busway's --timeout.
    pub fn wait(&mut self, address: u64, mask: u32, value: u32) {
        self.mov_rsi(address);
        self.emit(&[0x8b, 0x06]); // mov eax, [rsi]
        self.emit_with_32(&[0x25], mask); // and eax, mask
        self.emit_with_32(&[0x3d], value); // cmp eax, value
        self.emit(&[0x75, 0xf2]); // jne to the first mov
    }

    /// Waits until so many interrupts have come.
    pub fn wait_for_interrupts(&mut self, count: u32) {
        self.wait(INTERRUPTS, !0, count);
    }

    /// RAX becomes a result.
    fn result(&mut self) {
        self.mov_rdi(RESULTS + self.results * 8);
        self.emit(&[0x48, 0x89, 0x07]); // mov [rdi], rax
        self.results += 1;
    }

    /// The word at `address` becomes a result.
    pub fn read(&mut self, address: u64) {
        self.mov_rsi(address);
        self.emit(&[0x48, 0x8b, 0x06]); // mov rax, [rsi]
        self.result();
    }

    /// The number of interrupts becomes a result.
    pub fn read_interrupts(&mut self) {
        self.read(INTERRUPTS);
    }

    /// The number of refused accesses becomes a result.
    pub fn read_faults(&mut self) {
        self.read(FAULTS);
    }

    /// WRMSR.
    pub fn write_msr(&mut self, msr: u32, value: u64) {
        self.emit_with_32(&[0xb9], msr); // mov ecx
        self.emit_with_32(&[0xb8], value as u32); // mov eax
        self.emit_with_32(&[0xba], (value >> 32) as u32); // mov edx
        self.emit(&[0x0f, 0x30]);
    }

    /// The MSR becomes a result.
    pub fn read_msr(&mut self, msr: u32) {
        self.emit_with_32(&[0xb9], msr); // mov ecx
        self.emit(&[0x0f, 0x32]);
        self.join();
        self.result();
    }

    /// The TSC becomes a result.
    pub fn read_tsc(&mut self) {
        self.emit(&[0x0f, 0x31]);
        self.join();
        self.result();
    }

    /// EDX:EAX into RAX.
    fn join(&mut self) {
        self.emit(&[0x48, 0xc1, 0xe2, 0x20]); // shl rdx, 32
        self.emit(&[0x48, 0x09, 0xd0]); // or rax, rdx
    }

    /// The stimer's count, `units` of 100 ns from now.
    pub fn write_count(&mut self, msr: u32, units: u32) {
        const TIME_REF_COUNT: u32 = 0x4000_0020;
        self.emit_with_32(&[0xb9], TIME_REF_COUNT); // mov ecx
        self.emit(&[0x0f, 0x32]); // rdmsr
        self.emit_with_32(&[0x05], units); // add eax
        self.emit(&[0x83, 0xd2, 0x00]); // adc edx, 0
        self.emit_with_32(&[0xb9], msr); // mov ecx
        self.emit(&[0x0f, 0x30]); // wrmsr
    }

    /// A hypercall from 64-bit mode; what it returns becomes a result.
    pub fn call_64(&mut self, page: u64, control: u64, input: u64, output: u64) {
        self.emit_with_64(&[0x48, 0xb9], control); // mov rcx
        self.emit_with_64(&[0x48, 0xba], input); // mov rdx
        self.emit_with_64(&[0x49, 0xb8], output); // mov r8
        self.emit_with_64(&[0x48, 0xb8], page); // mov rax
        self.emit(&[0xff, 0xd0]); // call rax
        self.result();
    }

    /// The same, `count` times, with the word at `address` as its first half of input; the last one's
    /// result counts.
    pub fn call_64_with(&mut self, page: u64, control: u64, address: u64, count: u32) {
        self.emit_with_32(&[0xbd], count); // mov ebp
        let start = self.code;
        self.emit_with_64(&[0x48, 0xb9], control); // mov rcx
        self.mov_rsi(address);
        self.emit(&[0x8b, 0x16]); // mov edx, [rsi]
        self.emit_with_64(&[0x48, 0xb8], page); // mov rax
        self.emit(&[0xff, 0xd0]); // call rax
        self.emit(&[0xff, 0xcd]); // dec ebp
        let back = (self.code + 2 - start) as u8;
        self.emit(&[0x75, back.wrapping_neg()]); // jnz
        self.result();
    }

    /// Does `body` so many times; its results are those of the last time. `body` must not be
    /// [`call_64_with`](Self::call_64_with).
    pub fn repeat(&mut self, count: u32, body: impl FnOnce(&mut Self)) {
        if count == 0 {
            return;
        }
        self.emit_with_32(&[0xbd], count); // mov ebp
        let start = self.code;
        body(self);
        self.emit(&[0xff, 0xcd]); // dec ebp
        let back = (self.code + 6 - start) as u32;
        self.emit_with_32(&[0x0f, 0x85], back.wrapping_neg()); // jnz
    }

    /// Adds one to a word.
    pub fn increment(&mut self, address: u64) {
        self.mov_rdi(address);
        self.emit(&[0xff, 0x07]); // inc dword [rdi]
    }

    /// A hypercall from 32-bit code; what it returns becomes a result.
    pub fn call_32(&mut self, page: u64, control: u64, input: u64, output: u64) {
        let inner = BASE + self.code as u64 + 18;
        self.emit_with_32(&[0x68], CODE_32.into()); // push
        self.emit_with_64(&[0x48, 0xb8], inner); // mov rax
        self.emit(&[0x50]); // push rax
        self.emit(&[0x48, 0xcb]); // retfq
        assert_eq!(BASE + self.code as u64, inner);
        let page = u32::try_from(page).unwrap();
        self.emit_with_32(&[0xb8], control as u32); // mov eax
        self.emit_with_32(&[0xba], (control >> 32) as u32); // mov edx
        self.emit_with_32(&[0xb9], input as u32); // mov ecx
        self.emit_with_32(&[0xbb], (input >> 32) as u32); // mov ebx
        self.emit_with_32(&[0xbe], output as u32); // mov esi
        self.emit_with_32(&[0xbf], (output >> 32) as u32); // mov edi
        self.emit_with_32(&[0xbd], page); // mov ebp
        self.emit(&[0xff, 0xd5]); // call ebp
        let outer = BASE + self.code as u64 + 7;
        self.emit_with_32(&[0xea], u32::try_from(outer).unwrap()); // jmp far
        self.emit(&CODE_64.to_le_bytes());
        // Upper halves are not kept by a change of mode.
        self.emit(&[0x89, 0xc0, 0x89, 0xd2]); // mov eax, eax; mov edx, edx
        self.join();
        self.result();
    }

    /// The file to boot: it ends by sending its results and switching the machine off.
    pub fn finish(mut self) -> Vec<u8> {
        self.mov_rsi(RESULTS);
        self.emit_with_32(&[0xb9], u32::try_from(self.results * 8).unwrap()); // mov ecx
        self.emit_with_32(&[0xba], SERIAL); // mov edx
        self.emit(&[0xf3, 0x6e]); // rep outsb
        self.emit_with_32(&[0xba], SLEEP_CONTROL); // mov edx
        self.emit(&[0xb0, SLEEP_NOW, 0xee]); // mov al; out dx, al
        self.emit(&[0xfa, 0xf4, 0xeb, 0xfc]); // cli; hlt; jmp to cli
        elf(&self.image)
    }
}

fn mov_rdi(value: u64) -> Vec<u8> {
    [&[0x48, 0xbf][..], &value.to_le_bytes()].concat()
}

/// An executable of one segment, entered at its start.
fn elf(image: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 0x1000;
    let len = image.len() as u64;
    let words =
        |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // An executable, for x86-64, version 1; entry, program headers; 64 bytes of header, one program
    // header of 56.
    file.extend(words(&[1 << 32 | 62 << 16 | 2, BASE, 64, 0, 64 << 32 | 56 << 48, 1]));
    // To be loaded; readable, writable and executable; where in the file, where in memory, how long.
    file.extend(words(&[7 << 32 | 1, HEADERS, BASE, BASE, len, len, HEADERS]));
    file.resize(HEADERS as usize, 0);
    file.extend(image);
    file
}
