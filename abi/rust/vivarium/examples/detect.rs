//! detect MODEL PICTURE: boxes (left, top, right, bottom in pixels) and how sure the model is of each.
use vivarium::{Input, Options, Payload, Runtime, Settings};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let picture = std::fs::read(&args[2])?;
    let model = Runtime::open(&Options::default())?.load(&args[1], None)?;
    let mut job = model.submit("detect", &[("image", Input::Image(&picture))], &Settings::default())?;
    let (mut scores, mut boxes) = (Vec::new(), Vec::new());
    while let Some(event) = job.next_event()? {
        match (event.name, event.payload) {
            ("scores.0", Payload::Tensor(t)) => scores = t.as_slice::<f32>().unwrap().to_vec(),
            ("boxes.0", Payload::Tensor(t)) => boxes = t.as_slice::<f32>().unwrap().to_vec(),
            _ => {}
        }
    }
    for (score, place) in scores.iter().zip(boxes.chunks(4)).filter(|(score, _)| **score > 0.5) {
        println!("{:.3} {:.1?}", score, place);
    }
    Ok(())
}
