"""Speech to text and text to speech with Dify apps, and conversion with ffmpeg."""
