"""A bot as bots are: it knows its services by environment variables only. Prints what it got as one JSON object."""

import json

from openai import OpenAI
from upstash_vector import Index

index = Index.from_env()
found = [
    [hit.id for hit in index.query(data="pillion", top_k=2, include_metadata=True)]
    for _ in range(2)
]
llm = OpenAI()
answer = llm.chat.completions.create(
    model="one", messages=[{"role": "user", "content": f"what is {found[0][0]}?"}]
)
print(json.dumps({"found": found, "answer": answer.choices[0].message.content}))
