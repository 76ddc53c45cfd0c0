"""The two wires, OpenAI's and Mistral's: the only place that knows how either looks."""
