// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pictures as PNG files.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use busway_video::Picture;
use png::{BitDepth, ColorType, Compression, Encoder, EncodingError};

/// The file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be written: {reason}", path = path.display())]
pub struct PngError {
    path: PathBuf,
    reason: EncodingError,
}

/// Writes `picture` into the file at `path`.
pub(super) fn write(picture: &Picture, path: &Path) -> Result<(), PngError> {
    let encode = || {
        let file = BufWriter::new(File::create(path)?);
        let mut encoder = Encoder::new(file, picture.width, picture.height);
        encoder.set_color(ColorType::Rgb);
        encoder.set_depth(BitDepth::Eight);
        encoder.set_compression(Compression::Fast);
        let mut writer = encoder.write_header()?;
        let pixels = picture.pixels.chunks_exact(4);
        let rgb: Vec<u8> = pixels.flat_map(|pixel| [pixel[2], pixel[1], pixel[0]]).collect();
        writer.write_image_data(&rgb)?;
        writer.finish()
    };
    encode().map_err(|reason| PngError { path: path.to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let path = std::env::temp_dir().join(format!("busway-{}.png", std::process::id()));
        let pixels = vec![1, 2, 3, 9, 4, 5, 6, 9, 7, 8, 9, 9, 10, 11, 12, 9];
        write(&Picture { width: 2, height: 2, pixels }, &path).unwrap();
        let decoder = png::Decoder::new(std::io::BufReader::new(File::open(&path).unwrap()));
        let mut reader = decoder.read_info().unwrap();
        let mut bytes = [0; 12];
        reader.next_frame(&mut bytes).unwrap();
        assert_eq!((reader.info().width, reader.info().height), (2, 2));
        assert_eq!(bytes, [3, 2, 1, 6, 5, 4, 9, 8, 7, 12, 11, 10]);
        std::fs::remove_file(&path).unwrap();
        let error = write(&Picture { width: 1, height: 1, pixels: vec![0; 4] }, "/".as_ref());
        assert!(error.unwrap_err().to_string().starts_with("/ cannot be written"));
    }
}
