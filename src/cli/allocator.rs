//! The program's allocator: the system's, but too little memory ends the program with a message
//! and status 1. Rust's own handler aborts, which looks like a crash and can leave a core dump.

#![allow(unsafe_code, reason = "GlobalAlloc is an unsafe trait; exiting at once needs libc")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::budget::failure_is_handled;

/// The system's allocator with a message when memory runs out.
///
/// Large buffers are allocated so that a failure is an error of the library
/// (`crate::budget::zeroed`). This is for all other allocations, also those of
/// dependencies.
pub struct Allocator;

// SAFETY: all memory comes from and returns to the system's allocator, with the same layouts.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's guarantees are those of `System`.
        checked(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        checked(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as in `alloc`.
        checked(unsafe { System.realloc(place, layout, size) }, size)
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(place, layout) }
    }
}

/// Lets all threads share one heap if the address space is limited (`ulimit -v`). The C library
/// reserves 64 MiB of addresses for the heap of each thread, and most of them stay unused.
pub fn share_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the call writes the limit into a plain struct; `mallopt` is called before threads
    // start.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        let is_known = libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) == 0;
        if is_known && limit.rlim_cur != libc::RLIM_INFINITY {
            libc::mallopt(libc::M_ARENA_MAX, 1);
        }
    }
}

/// Returns what the system allocated. Ends the program if that is nothing, unless the caller
/// handles it.
fn checked(allocated: *mut u8, size: usize) -> *mut u8 {
    if allocated.is_null() && !failure_is_handled() {
        exit_without_memory(size);
    }
    allocated
}

/// Ends the program with a message. It must not allocate, nor wait for a lock that this thread can
/// hold.
#[cold]
fn exit_without_memory(size: usize) -> ! {
    static ENDS: AtomicBool = AtomicBool::new(false);
    if ENDS.swap(true, Ordering::SeqCst) {
        // Another thread writes the message and ends the program.
        loop {
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
    }
    let mut text = [0; 256];
    let mut rest = &mut text[..];
    let _ = writeln!(
        rest,
        "csae: not enough memory: {} KiB could not be allocated; use smaller or fewer images, a \
         smaller batch or --threads 1, or allow the process more memory",
        size.div_ceil(1024)
    );
    let unused = rest.len();
    end(&text[..text.len() - unused])
}

#[cfg(unix)]
fn end(message: &[u8]) -> ! {
    // SAFETY: the message is valid for its length. `_exit` runs no handlers, which could allocate.
    unsafe {
        libc::write(super::drivers::messages(), message.as_ptr().cast(), message.len());
        libc::_exit(1)
    }
}

#[cfg(not(unix))]
fn end(message: &[u8]) -> ! {
    let _ = std::io::stderr().write_all(message);
    std::process::exit(1)
}
