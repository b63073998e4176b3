//! generate MODEL TEXT: what the model goes on to say; in the daemon where one runs.
use std::io::Write;
use vivarium::{Code, Options, Runtime, Settings};

fn main() -> vivarium::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let runtime = match Runtime::connect(None) {
        Err(e) if e.code == Code::NotNow => Runtime::open(&Options::default())?,
        other => other?,
    };
    let model = runtime.load(&args[1], None)?;
    let settings = Settings { params: Some("{\"max_new_tokens\": 64}"), ..Settings::default() };
    for piece in model.generate(&args[2], &settings)? {
        print!("{}", piece?);
        std::io::stdout().flush().unwrap();
    }
    println!();
    Ok(())
}
