//! Microseconds of a null job through Rust: null_jobs MODEL N.
use std::time::Instant;
use vivarium::{Options, Runtime, Settings, Tensor};

fn main() -> vivarium::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let model = Runtime::open(&Options::default())?.load(&args[1], None)?;
    let n: usize = args[2].parse().expect("N is a number");
    let mut times = Vec::with_capacity(n);
    for _ in 0..n {
        let begun = Instant::now();
        let x = Tensor::new(&[1], &[1f32])?;
        let mut job = model.submit("forward", &[("x", x.into())], &Settings::default())?;
        while job.next_event()?.is_some() {}
        drop(job);
        times.push(begun.elapsed().as_nanos() as f64 / 1e3);
    }
    times.sort_by(|a, b| a.total_cmp(b));
    println!("Rust    null job: least {:7.2}  p50 {:7.2} us", times[0], times[n / 2]);
    Ok(())
}
