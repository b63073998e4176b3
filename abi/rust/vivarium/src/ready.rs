//! One thread that wakes tasks when their job's descriptor can be read. It begins with the first task that
//! waits; no executor is asked for.

use std::io::{Read, Write};
use std::os::raw::{c_int, c_short, c_ulong};
use std::os::unix::io::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, Once, OnceState};
use std::task::Waker;
use std::thread;

#[repr(C)]
struct PollFd {
    fd: c_int,
    events: c_short,
    revents: c_short,
}

const POLLIN: c_short = 1;

extern "C" {
    fn poll(fds: *mut PollFd, n: c_ulong, timeout_ms: c_int) -> c_int;
}

struct Waiting {
    list: Vec<(RawFd, Waker)>,
    bell: Option<UnixStream>,
}

static BEGIN: Once = Once::new();
static WAITING: Mutex<Waiting> = Mutex::new(Waiting { list: Vec::new(), bell: None });

fn lock() -> std::sync::MutexGuard<'static, Waiting> {
    WAITING.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn watch(mut rung: UnixStream) {
    let mut scratch = [0u8; 64];
    loop {
        let mut fds = vec![PollFd { fd: rung.as_raw_fd(), events: POLLIN, revents: 0 }];
        fds.extend(lock().list.iter().map(|(fd, _)| PollFd { fd: *fd, events: POLLIN, revents: 0 }));
        // A descriptor that was closed meanwhile answers at once, and its task looks again.
        unsafe { poll(fds.as_mut_ptr(), fds.len() as c_ulong, -1) };
        if fds[0].revents != 0 {
            let _ = rung.read(&mut scratch);
        }
        let ready: Vec<RawFd> = fds[1..].iter().filter(|f| f.revents != 0).map(|f| f.fd).collect();
        let mut wakers = Vec::new();
        lock().list.retain(|(fd, waker)| {
            let stays = !ready.contains(fd);
            if !stays {
                wakers.push(waker.clone());
            }
            stays
        });
        wakers.into_iter().for_each(Waker::wake);
    }
}

fn begin(_: &OnceState) {
    if let Ok((ours, theirs)) = UnixStream::pair() {
        let _ = ours.set_nonblocking(true);
        if thread::Builder::new().name("vivarium-ready".into()).spawn(move || watch(theirs)).is_ok() {
            lock().bell = Some(ours);
        }
    }
}

/// Without a descriptor or a thread the task is woken at once and asks again: slower, never stuck.
pub(crate) fn wake_when_readable(fd: RawFd, waker: &Waker) {
    BEGIN.call_once_force(begin);
    let mut waiting = lock();
    let watched = fd >= 0 && waiting.bell.is_some();
    if watched {
        waiting.list.retain(|(other, w)| *other != fd || !w.will_wake(waker));
        waiting.list.push((fd, waker.clone()));
        if let Some(bell) = waiting.bell.as_mut() {
            let _ = bell.write(&[1]); // a full socket rings as well
        }
    } else {
        drop(waiting);
        thread::yield_now();
        waker.wake_by_ref();
    }
}

/// The descriptor is about to be closed.
pub(crate) fn forget(fd: RawFd) {
    lock().list.retain(|(other, _)| *other != fd);
}
