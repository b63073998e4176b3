use crate::error::{Error, Result};
use crate::ready;
use crate::value::{bytes_of, Tensor};
use crate::{ModelHandle, SessionHandle};
use std::future::Future;
use std::mem::{size_of, MaybeUninit};
use std::os::unix::io::{AsRawFd, RawFd};
use std::pin::Pin;
use std::str::from_utf8;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use vivarium_sys as sys;

/// The library's job. The event pointer is only used through the one Job that owns it; cancelling is
/// allowed from any thread.
pub(crate) struct JobHandle {
    at: *mut sys::viv_job,
    // Freed after the job, in this order.
    _session: Option<Arc<SessionHandle>>,
    _model: Arc<ModelHandle>,
}

unsafe impl Send for JobHandle {}
unsafe impl Sync for JobHandle {}

impl Drop for JobHandle {
    fn drop(&mut self) {
        unsafe { sys::viv_job_free(self.at) }
    }
}

/// What an event carries, in the library's memory.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Payload<'a> {
    Text(&'a str),
    Json(&'a str),
    Image(&'a [u8]),
    Audio(&'a [u8]),
    Tensor(Tensor<'a>),
    /// From 0 to 1.
    Progress(f64),
}

/// One result of a job, valid until the next one is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    pub name: &'a str,
    pub seq: u64,
    pub payload: Payload<'a>,
}

/// A result that was copied.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Owned {
    Text(String),
    Json(String),
    Image(Vec<u8>),
    Audio(Vec<u8>),
    Tensor { dtype: crate::Dtype, shape: Vec<i64>, bytes: Vec<u8> },
    Progress(f64),
}

/// An event that was copied: what the iterator gives.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnedEvent {
    pub name: String,
    pub seq: u64,
    pub payload: Owned,
}

impl Event<'_> {
    pub fn to_owned(&self) -> OwnedEvent {
        let payload = match self.payload {
            Payload::Text(s) => Owned::Text(s.to_string()),
            Payload::Json(s) => Owned::Json(s.to_string()),
            Payload::Image(b) => Owned::Image(b.to_vec()),
            Payload::Audio(b) => Owned::Audio(b.to_vec()),
            Payload::Tensor(t) => {
                Owned::Tensor { dtype: t.dtype(), shape: t.shape().to_vec(), bytes: t.bytes().to_vec() }
            }
            Payload::Progress(p) => Owned::Progress(p),
        };
        OwnedEvent { name: self.name.to_string(), seq: self.seq, payload }
    }
}

/// Cancels a job from any thread; takes effect at the job's next poll.
#[derive(Clone)]
pub struct Canceller(Arc<JobHandle>);

impl Canceller {
    pub fn cancel(&self) {
        unsafe { sys::viv_job_cancel(self.0.at) }
    }
}

/// A job that runs: an iterator of its events, which ends after the last one or with the job's failure.
/// Dropping it cancels the job.
pub struct Job {
    handle: Arc<JobHandle>,
    ended: bool,
    awaited: bool,
    counters: String,
}

enum Next<'a> {
    Event(Event<'a>),
    Nothing,
    End,
}

fn utf8<'a>(s: &sys::viv_str) -> &'a str {
    // The library promises UTF-8; a broken promise gives an empty text, not undefined behaviour.
    from_utf8(unsafe { bytes_of(s) }).unwrap_or("")
}

impl Job {
    pub(crate) fn new(
        at: *mut sys::viv_job,
        session: Option<Arc<SessionHandle>>,
        model: Arc<ModelHandle>,
    ) -> Job {
        let handle = Arc::new(JobHandle { at, _session: session, _model: model });
        Job { handle, ended: false, awaited: false, counters: String::new() }
    }

    fn pull(&mut self, timeout_ms: i64) -> Result<Next<'_>> {
        while !self.ended {
            let mut room = MaybeUninit::<sys::viv_event>::zeroed();
            let e = unsafe {
                (*room.as_mut_ptr()).struct_size = size_of::<sys::viv_event>() as u32;
                match sys::viv_next_event(self.handle.at, timeout_ms, room.as_mut_ptr()) {
                    sys::VIV_OK => room.assume_init(),
                    sys::VIV_WAIT => return Ok(Next::Nothing),
                    _ => break,
                }
            };
            let payload = match e.kind {
                sys::VIV_KIND_END => {
                    self.ended = true;
                    self.counters = utf8(&e.bytes).to_string();
                    if e.status < 0 {
                        let nothing = Error::empty();
                        return Err(Error::from_c(e.status, unsafe { e.error.as_ref() }.unwrap_or(&nothing)));
                    }
                    break;
                }
                sys::VIV_KIND_TEXT => Payload::Text(utf8(&e.bytes)),
                sys::VIV_KIND_JSON => Payload::Json(utf8(&e.bytes)),
                sys::VIV_KIND_IMAGE => Payload::Image(unsafe { bytes_of(&e.bytes) }),
                sys::VIV_KIND_AUDIO => Payload::Audio(unsafe { bytes_of(&e.bytes) }),
                sys::VIV_KIND_PROGRESS => Payload::Progress(e.progress),
                sys::VIV_KIND_TENSOR => match unsafe { e.tensor.as_ref().and_then(|t| Tensor::from_c(t)) } {
                    Some(t) => Payload::Tensor(t),
                    None => continue, // of a type that a newer library has
                },
                _ => continue,
            };
            return Ok(Next::Event(Event { name: utf8(&e.name), seq: e.seq, payload }));
        }
        self.ended = true;
        Ok(Next::End)
    }

    /// The next event without a copy, None after the last. Waits for it.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>> {
        match self.pull(-1)? {
            Next::Event(e) => Ok(Some(e)),
            _ => Ok(None),
        }
    }

    /// The same, but waits so long at most: then Poll::Pending.
    pub fn wait_event(&mut self, most: Duration) -> Poll<Result<Option<Event<'_>>>> {
        let ms = i64::try_from(most.as_millis()).unwrap_or(i64::MAX);
        match self.pull(ms) {
            Ok(Next::Event(e)) => Poll::Ready(Ok(Some(e))),
            Ok(Next::End) => Poll::Ready(Ok(None)),
            Ok(Next::Nothing) => Poll::Pending,
            Err(e) => Poll::Ready(Err(e)),
        }
    }

    /// For async code of any executor, in the shape of a Stream's function:
    /// `futures::stream::poll_fn(move |cx| job.poll_next(cx))`.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<OwnedEvent>>> {
        let fd = self.as_raw_fd();
        match self.pull(0) {
            Ok(Next::Event(e)) => Poll::Ready(Some(Ok(e.to_owned()))),
            Ok(Next::End) => Poll::Ready(None),
            Err(e) => Poll::Ready(Some(Err(e))),
            Ok(Next::Nothing) => {
                self.awaited = true;
                ready::wake_when_readable(fd, cx.waker());
                Poll::Pending
            }
        }
    }

    /// The next event as a future.
    pub fn next_async(&mut self) -> NextEvent<'_> {
        NextEvent(self)
    }

    pub fn cancel(&self) {
        unsafe { sys::viv_job_cancel(self.handle.at) }
    }

    pub fn canceller(&self) -> Canceller {
        Canceller(self.handle.clone())
    }

    /// The job's counters, a JSON object; empty before its end.
    pub fn counters(&self) -> &str {
        &self.counters
    }
}

/// Readable while events wait; -1 when the system has no descriptors left.
impl AsRawFd for Job {
    fn as_raw_fd(&self) -> RawFd {
        unsafe { sys::viv_job_fd(self.handle.at) }
    }
}

impl Iterator for Job {
    type Item = Result<OwnedEvent>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.pull(-1) {
            Ok(Next::Event(e)) => Some(Ok(e.to_owned())),
            Ok(_) => None,
            Err(e) => Some(Err(e)),
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.awaited {
            ready::forget(self.as_raw_fd());
        }
        if !self.ended {
            self.cancel(); // a Canceller may outlive this and keep the handle
        }
    }
}

/// See `Job::next_async`.
pub struct NextEvent<'a>(&'a mut Job);

impl Future for NextEvent<'_> {
    type Output = Option<Result<OwnedEvent>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_next(cx)
    }
}
