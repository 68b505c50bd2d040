"""Client tools and schemas on Dify apps, whose API has neither: instructions, parsing, validation and repair."""
