//! Classifier-free guidance: pushes the prompt's prediction away from the negative one.

/// `negative + guidance * (prompt - negative)`, value by value in f32; both slices have the same length.
pub fn combine(negative: &[f32], prompt: &[f32], guidance: f32) -> Vec<f32> {
    assert_eq!(negative.len(), prompt.len(), "both branches predict the same latent");
    negative.iter().zip(prompt).map(|(negative, prompt)| negative + guidance * (prompt - negative)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guidance_of_zero_one_and_more_gives_negative_prompt_and_beyond() {
        let (negative, prompt) = ([1.0, -2.0], [3.0, -1.0]);
        assert_eq!(combine(&negative, &prompt, 0.0), negative);
        assert_eq!(combine(&negative, &prompt, 1.0), prompt);
        assert_eq!(combine(&negative, &prompt, 7.5), [16.0, 5.5]);
    }
}
