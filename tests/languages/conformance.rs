//! The conformance list through Rust, in this process and through a daemon:
//! conformance MODEL TEST_MODEL DIR [SOCKET], as conformance.py.

use std::alloc::{GlobalAlloc, Layout, System};
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};
use vivarium::{
    Code, Error, Input, Model, Options, Owned, Payload, Result, Runtime, Session, Settings, Tensor,
};

/// Counts what Rust allocates: a tensor that is not copied is not among it.
struct Counting;
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        System.alloc(layout)
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        System.dealloc(at, layout)
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PROMPT: &str = "Once upon a time";
const SIXTY: &str = r#"{"max_new_tokens": 60}"#;
const TWENTY: &str = r#"{"max_new_tokens": 20}"#;
const ENDLESS: &str = r#"{"max_new_tokens": 100000, "ignore_eos": true}"#;

fn on(session: &Session) -> Settings<'_> {
    Settings { session: Some(session), ..with(TWENTY) }
}

fn with(params: &str) -> Settings<'_> {
    Settings { params: Some(params), ..Settings::default() }
}

struct List(&'static str);

impl List {
    fn check(&self, name: &str, good: bool) {
        println!("{} - {}: {}", if good { "ok" } else { "not ok" }, self.0, name);
        if !good {
            std::process::exit(1);
        }
    }
}

/// A line that must be the same in every language.
fn tell(what: &str, text: &str) {
    println!("# {}: {}", what, text.replace('\n', " "));
}

fn say(model: &Model, text: &str, settings: &Settings<'_>) -> Result<Vec<String>> {
    model.generate(text, settings)?.collect()
}

fn failure<T>(result: Result<T>) -> Option<Error> {
    result.err()
}

/// Runs two futures in turns on this thread, which sleeps until one of them is woken.
struct Sleeper(std::thread::Thread);

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

async fn speak(model: &Model) -> Result<String> {
    let mut job = model.submit("generate", &[("text", PROMPT.into())], &with(SIXTY))?;
    let mut all = String::new();
    while let Some(event) = job.next_async().await {
        if let Owned::Text(piece) = event?.payload {
            all += &piece;
        }
    }
    Ok(all)
}

fn both<'a>(mut futures: Vec<Pin<Box<dyn Future<Output = Result<String>> + 'a>>>) -> Vec<String> {
    let waker = Waker::from(Arc::new(Sleeper(std::thread::current())));
    let mut answers = Vec::new();
    while !futures.is_empty() {
        futures.retain_mut(|f| match f.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => {
                answers.push(answer.unwrap_or_default());
                false
            }
            Poll::Pending => true,
        });
        if !futures.is_empty() {
            std::thread::park();
        }
    }
    answers
}

fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn null_jobs(null: &Model, n: usize) -> Result<()> {
    for _ in 0..n {
        let x = Tensor::new(&[3], &[1f32, 2.0, 3.0])?;
        let mut job = null.submit("forward", &[("x", x.into())], &Settings::default())?;
        while job.next_event()?.is_some() {}
    }
    Ok(())
}

fn jobs(list: &List, model: &Model, expected: &str) -> Result<()> {
    let pieces = say(model, PROMPT, &with(SIXTY))?;
    list.check("load, infer and stream", pieces.len() > 10 && pieces.concat() == expected);
    let mut job = model.submit("generate", &[("text", PROMPT.into())], &with(ENDLESS))?;
    job.next_event()?;
    let stop = job.canceller();
    std::thread::spawn(move || stop.cancel());
    let end = job.find_map(|event| event.err());
    list.check("cancel midway, from another thread", end.map(|e| e.code) == Some(Code::Cancelled));
    let some: Vec<_> = model.generate(PROMPT, &with(ENDLESS))?.take(5).collect();
    list.check("an iterator that is dropped cancels", some.len() == 5);
    let begun = Instant::now();
    let settings = Settings { deadline: Some(Duration::from_millis(5)), ..with(ENDLESS) };
    let late = failure(say(model, PROMPT, &settings));
    let code = late.map(|e| e.code);
    list.check("deadline", code == Some(Code::Deadline) && begun.elapsed() < Duration::from_secs(20));
    let bad = failure(say(model, "x", &with(r#"{"top_p": 7}"#)));
    let named = bad.as_ref().map_or(false, |e| e.code == Code::BadInput && e.place.contains("top_p"));
    list.check("bad input names the place", named);
    tell("bad input", &bad.map_or(String::new(), |e| e.to_string()));
    Ok(())
}

fn tensors(list: &List, model: &Model, null: &Model, expected: &str) -> Result<()> {
    let mut other = model.submit("generate", &[("text", PROMPT.into())], &with(SIXTY))?;
    let numbers: Vec<f32> = (0..150528).map(|i| i as f32).collect();
    let had = ALLOCATED.load(Ordering::Relaxed);
    let x = Tensor::new(&[3, 224, 224], &numbers)?;
    let mut job = null.submit("forward", &[("x", Input::Tensor(x))], &Settings::default())?;
    let event = job.next_event()?.unwrap();
    let same = match event.payload {
        Payload::Tensor(t) => {
            t.shape() == [3, 224, 224]
                && t.as_slice::<f32>() == Some(&numbers[..])
                && t.as_slice::<i32>().is_none()
        }
        _ => false,
    };
    let copied = ALLOCATED.load(Ordering::Relaxed) - had;
    list.check("a tensor in and out, seen where it lies", event.name == "y" && same);
    list.check("without a copy of its 588 KiB in Rust", copied < 100_000);
    let mut text = String::new();
    while let Some(event) = other.next_event()? {
        if let Payload::Text(piece) = event.payload {
            text += piece;
        }
    }
    list.check("two models at once", text == expected && other.counters().starts_with('{'));
    list.check("a shape that does not fit", failure(Tensor::new(&[2, 2], &numbers)).is_some());
    Ok(())
}

fn sessions(list: &List, model: &Model, folder: &Path) -> Result<()> {
    let session = model.session()?;
    say(model, PROMPT, &on(&session))?;
    list.check("a session goes on", !say(model, " Then", &on(&session))?.is_empty());
    let path = folder.join("rust.session");
    session.save(&path)?;
    let third = say(model, " And", &on(&session))?;
    let resumed = model.resume(&path)?;
    list.check("a session is saved and resumed", say(model, " And", &on(&resumed))? == third);
    Ok(())
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let (model_path, null_path, folder) = (&args[1], &args[2], Path::new(&args[3]));
    let socket = args.get(4).map(Path::new);
    let list = List(if socket.is_some() { "daemon" } else { "in-process" });
    let here = Runtime::open(&Options::default())?;
    let expected = say(&here.load(model_path, None)?, PROMPT, &with(SIXTY))?.concat();
    tell("said", &expected);
    let runtime =
        if socket.is_some() { Runtime::connect(socket)? } else { Runtime::open(&Options::default())? };
    let model = runtime.load(model_path, None)?;
    let null = runtime.load(null_path, None)?;
    jobs(&list, &model, &expected)?;
    let gone = failure(runtime.load("/nowhere/at/all", None));
    let text =
        gone.map_or(String::new(), |e| if e.code == Code::Never { e.to_string() } else { String::new() });
    list.check("a model that is not there", text.contains("/nowhere/at/all"));
    tell("absent", &text);
    tensors(&list, &model, &null, &expected)?;
    sessions(&list, &model, folder)?;
    let ids = model.tokenize("a little dog", true)?;
    list.check("tokens there and back", model.detokenize(&ids, true)?.contains("little dog"));
    list.check("describe", model.describe()?.contains("generate"));
    let answers = both(vec![Box::pin(speak(&model)), Box::pin(speak(&model))]);
    list.check("async", answers.len() == 2 && answers.iter().all(|a| *a == expected));
    drop(runtime);
    list.check(
        "a model outlives the runtime's handle",
        say(&model, PROMPT, &with(SIXTY))?.concat() == expected,
    );
    null_jobs(&null, 300)?;
    let (before, files) = (resident(), descriptors());
    null_jobs(&null, 1000)?;
    list.check("no leak over 1,000 jobs", resident() < before + (2 << 20) && descriptors() <= files);
    Ok(())
}
